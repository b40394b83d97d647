"""Corpora: sources of media to tokens that a training reads, shard by shard, with resume."""

from zoo.corpus.sinks import push_to_hub, read
from zoo.corpus.tokenizing import CorpusResult, Progress, ShardFailure, tokenize

__all__ = ["CorpusResult", "Progress", "ShardFailure", "push_to_hub", "read", "tokenize"]
