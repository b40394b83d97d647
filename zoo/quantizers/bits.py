"""Sign vectors and the integers that name them, the first channel the least significant bit."""

from __future__ import annotations

import torch
from torch import Tensor


def signs_to_codes(positive: Tensor) -> Tensor:
    """Bool `[..., bits]`, whether the channel is +1, to int64 `[...]`."""
    return (positive.long() << torch.arange(positive.shape[-1], device=positive.device)).sum(dim=-1)


def codes_to_signs(codes: Tensor, num_bits: int) -> Tensor:
    """Int64 `[...]` to float32 `[..., num_bits]` of -1 and +1."""
    bits = (codes[..., None] >> torch.arange(num_bits, device=codes.device)) & 1
    return (2 * bits - 1).float()
