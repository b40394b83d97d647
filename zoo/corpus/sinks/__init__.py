"""Formats in which a corpus is written, one file each."""
