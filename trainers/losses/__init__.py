"""Losses of reconstructions and of code vectors, and their weighted sum."""
