"""Haar wavelets as patches: every level halves each axis and splits each channel into bands."""

from __future__ import annotations

import torch
from torch import Tensor


def haar(x: Tensor, axes: tuple[int, ...], levels: int) -> Tensor:
    """Signal to wavelet coefficients, which are means and half differences of neighbours.

    Args:
        x: `[B, channels, *axes]`.
        axes: to filter, of even length at each level. A band is named by one letter an axis, L before H, and the
            first axis is the slowest to change: of `(width, height)`, LL, LH, HL, HH.
        levels: the second filters all bands of the first.

    Returns:
        `[B, 2^(len(axes) levels) channels, *axes / 2^levels]`; bands of the last level first, then of the one before.
    """
    for _ in range(levels):
        for axis in reversed(axes):
            even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
            x = torch.cat([even + odd, even - odd], dim=1) / 2
    return x


def inverse_haar(x: Tensor, axes: tuple[int, ...], levels: int) -> Tensor:
    """What `haar` was given."""
    for _ in range(levels):
        for axis in axes:
            low, high = x.chunk(2, dim=1)
            x = torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1)
    return x
