"""Losses of reconstructions and of codes' vectors, and their weighted sum."""
