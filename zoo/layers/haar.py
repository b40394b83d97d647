"""Haar wavelets: every level halves each axis and splits each channel into bands."""

from __future__ import annotations

import torch
from torch import Tensor


def haar(x: Tensor, axes: tuple[int, ...], levels: int) -> Tensor:
    """Return the wavelet coefficients of a signal, which are means and half differences of neighbours.

    Args:
        x: `[B, channels, *sizes]`.
        axes: axes to filter, of even length at each level. A band is named by one letter for each axis, L (means) or
            H (differences), and L comes first; the letter of the first axis changes slowest: for `(width, height)`
            the order is LL, LH, HL, HH.
        levels: times that all bands are filtered.

    Returns:
        `[B, 2^(len(axes) * levels) * channels, *sizes / 2^levels]`; the band of the last level changes slowest.
    """
    for _ in range(levels):
        for axis in reversed(axes):
            even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
            x = torch.cat([even + odd, even - odd], dim=1) / 2
    return x


def inverse_haar(x: Tensor, axes: tuple[int, ...], levels: int) -> Tensor:
    """Return the signal whose coefficients `haar` returned."""
    for _ in range(levels):
        for axis in axes:
            low, high = x.chunk(2, dim=1)
            x = torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1)
    return x
