"""What key maps of several systems do to a published tensor, and to their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def flag(value: Tensor) -> Tensor:
    """Return a flag that is stored as a number or a bool, of one element, as a bool without axes."""
    return value.reshape(()) != 0


def pointwise_to_linear(tensor: Tensor) -> Tensor:
    """Return the weight `[out, in, 1]` of a convolution of one tap as that of a linear map; a bias stays as it is."""
    return tensor.squeeze(-1)


def inside(published: str, ours: str, table: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the rules of a module's tensors for its place in the network, which is put before both names."""
    return [(published + theirs, ours + own, *transform) for theirs, own, *transform in table]
