"""Blocks that two or more systems share; no whole network."""
