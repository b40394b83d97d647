"""Helpers for code that may be traced: whether the values of a tensor exist, and how sizes compare."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


def values_are_readable(tensor: Tensor) -> bool:
    """Return whether Python code may branch on the values of `tensor` (`bool(tensor.any())`, `.item()`, `.tolist()`).

    False while `torch.compile` or `torch.export` traces the code, under `FakeTensorMode`, and for meta and fake
    tensors: their values do not exist, and reading one is an error or breaks the graph. Checks of values are skipped
    there; checks of shapes and dtypes are not.
    """
    if torch.compiler.is_compiling() or tensor.is_meta or isinstance(tensor, FakeTensor):
        return False
    # (`torch._guards.detect_fake_mode` answers the same, but takes many times as long as a small check.)
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None


def larger(one: int, other: int) -> int:
    """Return the larger of two sizes, without a guard where an exported graph has to work for any size."""
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other)
    return torch.sym_max(one, other)


def smaller(one: int, other: int) -> int:
    """Return the smaller of two sizes, without a guard where an exported graph has to work for any size."""
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    return torch.sym_min(one, other)
