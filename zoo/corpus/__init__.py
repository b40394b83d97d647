"""Corpora: sources of media to tokens that a training reads, shard by shard, with resume."""
