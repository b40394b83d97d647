"""Which tokenizer at which rate: reconstructions of a folder of files, compared with those of the classical codecs.

`zoo.bench(names, data, ...)` runs it; a method of one's own is a `Candidate`.
"""

from zoo.bench.candidates import Candidate
from zoo.bench.runner import Benchmark, bench
from zoo.bench.tables import merge, write_csv, write_latex
from zoo.callable_module import make_callable

__all__ = ["Benchmark", "Candidate", "bench", "merge", "write_csv", "write_latex"]

make_callable(__name__)
