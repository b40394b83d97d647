"""Sign vectors and the integers that stand for them; the first channel is the least significant bit."""

from __future__ import annotations

import torch
from torch import Tensor


def signs_to_codes(positive: Tensor) -> Tensor:
    """Return the integers int64 `[...]` of sign vectors, given as bool `[..., bits]`: whether a channel is +1."""
    return (positive.long() * powers_of_two(positive.shape[-1], positive.device)).sum(dim=-1)


def codes_to_signs(codes: Tensor, num_bits: int) -> Tensor:
    """Return the sign vectors, float32 `[..., num_bits]` of -1 and +1, that integers int64 `[...]` name."""
    return torch.where(codes[..., None] & powers_of_two(num_bits, codes.device) != 0, 1.0, -1.0)


def powers_of_two(number: int, device: torch.device) -> Tensor:
    """Return int64 `[number]`: 1, 2, 4, and so on. (ONNX has no shift of signed integers.)"""
    return torch.tensor([2**bit for bit in range(number)], device=device)
