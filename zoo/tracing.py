"""Whether the values of a tensor exist yet, which checks that read them have to know."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._guards import detect_fake_mode


def values_are_readable(tensor: Tensor) -> bool:
    """Return whether Python code may branch on the values of `tensor` (`bool(tensor.any())`, `.item()`, `.tolist()`).

    False while `torch.compile` or `torch.export` traces the code, under `FakeTensorMode`, and for meta and fake
    tensors: their values do not exist, and reading one is an error or breaks the graph. Checks of values are skipped
    there; checks of shapes and dtypes are not.
    """
    return not (torch.compiler.is_compiling() or tensor.is_meta or detect_fake_mode(tensor) is not None)
