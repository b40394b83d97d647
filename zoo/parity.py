"""Parity with the reference implementations: `zoo.parity(name, manifest, golden)`."""

from zoo.callable_module import make_callable
from zoo.checkpoints.parity import ParityReport, compare, parity, read_golden, read_manifest, run_network, to_ours
from zoo.checkpoints.synthetic import synthetic_checkpoint

__all__ = [
    "ParityReport",
    "compare",
    "parity",
    "read_golden",
    "read_manifest",
    "run_network",
    "synthetic_checkpoint",
    "to_ours",
]

make_callable(__name__)
