"""Which tokenizer at which rate: reconstructions of a folder of files, compared with those of the classical codecs.

`zoo.bench(names, data, ...)` runs it.
"""

from zoo.bench.runner import Benchmark, bench
from zoo.callable_module import make_callable

__all__ = ["Benchmark", "bench"]

make_callable(__name__)
