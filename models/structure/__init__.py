"""Protein structure tokenizers."""
