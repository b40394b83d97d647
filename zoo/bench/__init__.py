"""Which tokenizer at which rate: reconstructions of a folder of files, compared with those of the classical codecs."""

from zoo.bench.runner import Benchmark, bench

__all__ = ["Benchmark", "bench"]
