"""Finite scalar quantization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast


class FSQ(Quantizer):
    """Each channel is bounded by a tanh and rounded to one of a few levels; all channels together are one code.

    Source: Mentzer 2023 (arXiv 2309.15505). With h = stretch (levels - 1) / 2, o = 1/2 for an even number of
    levels and 0 for an odd one, s = atanh(o / h): n = round(tanh(z + s) h - o), half to even. `quantized` is
    n / floor(levels / 2); the code is Σ (n + floor(levels / 2)) × product of the levels before, so the first
    channel is the least significant digit. The gradient goes straight through the rounding, but not the tanh.
    Nothing is learned or stored.

    Losses: `spread_loss`, which the paper does not have: the mean squared difference between the first and second
    moments of tanh(z + s) and those of independent uniform channels. It keeps latents away from the ends of the tanh,
    where there is no gradient, and spreads them over all codes; the other losses see no advantage in that, since the
    gradient of the rounding is straight through.

    Args:
        levels: number of levels of each channel, at least 3 (one of 2 levels would never be reached, because of the
            published bound).
        stretch: how far the tanh reaches, as a factor of the outermost levels.
    """

    def __init__(self, levels: Sequence[int], *, stretch: float = 1.001):
        levels = tuple(levels)
        if not levels or min(levels) < 3 or math.prod(levels) > 2**62:
            raise InputError(f"expected 3 levels or more a channel, 2^62 codes at most, got {list(levels)}")
        super().__init__(len(levels), (math.prod(levels),))
        self.levels = levels
        self.strides = tuple(math.prod(levels[:channel]) for channel in range(len(levels)))
        self.middle = tuple(level // 2 for level in levels)
        self.half_range = tuple(stretch * (level - 1) / 2 for level in levels)
        self.offset = tuple(0.0 if level % 2 else 0.5 for level in levels)

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        with without_autocast(z):
            return self._codes(self._bound(self.check_latent(z)).round())

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to float32 `[..., dim]` in [-1, 1]."""
        levels, middle, strides = torch.tensor([self.levels, self.middle, self.strides], device=codes.device)
        return (self.check_codes(codes) // strides % levels - middle) / middle

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            bounded = self._bound(self.check_latent(z))
            rounded = bounded.detach().round()
            quantized = straight_through(bounded, rounded) / torch.tensor(self.middle, device=z.device)
            losses = {"spread_loss": self._spread_loss(bounded)} if self.training else {}
            return QuantizerOutput(quantized.to(z.dtype), self._codes(rounded), losses)

    def _bound(self, latent: Tensor) -> Tensor:
        # All in float32, as in the published code: codes depend on it.
        bounds = [self.half_range, self.offset]
        half_range, offset = torch.tensor(bounds, dtype=torch.float32, device=latent.device)
        return torch.tanh(latent + torch.atanh(offset / half_range)) * half_range - offset

    def _spread_loss(self, bounded: Tensor) -> Tensor:
        half_range, offset = torch.tensor([self.half_range, self.offset], device=bounded.device)
        unit = ((bounded + offset) / half_range).flatten(0, -2) * math.sqrt(3)  # uniform channels: variance 1
        moments = torch.cat([unit, unit.new_ones(len(unit), 1)], dim=1)
        moments = moments.T @ moments / len(unit)
        return (moments - torch.eye(len(moments), device=bounded.device)).square().mean()

    def _codes(self, rounded: Tensor) -> Tensor:
        dtype = torch.int32 if self.codebook_sizes[0] < 2**31 else torch.int64
        strides = torch.tensor(self.strides, dtype=dtype, device=rounded.device)
        middle = sum(level * stride for level, stride in zip(self.middle, self.strides, strict=True))
        return (rounded.to(dtype) * strides).sum(dim=-1, keepdim=True) + middle
