"""Codecs of `transformers` behind zoo's contract: what they share, their quantizers, and the two kinds of them."""
