"""Parity with the reference implementations: `zoo.parity(name, manifest, golden)`."""

from zoo.callable_module import make_callable
from zoo.checkpoints.parity import ParityReport, parity
from zoo.checkpoints.synthetic import synthetic_checkpoint

__all__ = ["ParityReport", "parity", "synthetic_checkpoint"]

make_callable(__name__)
