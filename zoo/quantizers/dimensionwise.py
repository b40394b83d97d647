"""Quantization of each channel after training (TokenBridge)."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through


class DimensionwiseQuantizer(Quantizer):
    """Every channel is a code: the nearest of 2^bits fixed levels, placed as for a Gaussian.

    Source: TokenBridge (arXiv 2503.16430). A normal distribution is cut into 2^bits cells of equal
    probability, clamped to ±`normal_range`; a level is the mean of its cell, stretched by `value_range` /
    `normal_range`. Latents are brought to zero mean and unit deviation, (z - mean) scale, before, and back
    after. The nearest level counts, the lower one on a tie. Nothing is learned: mean and scale (buffers,
    per channel) are set by `calibrate`, or given.

    Args:
        dim: channels, and codes per position.
        bits: of each code.
        value_range: what ±`normal_range` of the levels stands for in calibrated latents.
        normal_range: standard deviations at which the normal distribution is cut.
        scale: the reciprocal of the latents' standard deviation, for all channels, until `calibrate`.

    There are no losses.
    """

    def __init__(
        self,
        dim: int,
        *,
        bits: int = 6,
        value_range: float = 5.0,
        normal_range: float = 3.0,
        scale: float = 1.0,
    ):
        if min(dim, bits, value_range, normal_range, scale) <= 0:
            raise InputError(
                f"expected positive dim, bits, value_range, normal_range and scale, got {dim}, {bits}, "
                f"{value_range}, {normal_range} and {scale}"
            )
        super().__init__(dim, (2**bits,) * dim)
        self.levels = [level * value_range / normal_range for level in normal_levels(2**bits, normal_range)]
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.full((dim,), float(scale)))

    @torch.no_grad()
    def calibrate(self, latents: Tensor) -> None:
        """Sets mean and scale of each channel to those of latents `[..., dim]`."""
        vectors = self.check_latent(latents).reshape(-1, self.dim)
        deviation = vectors.std(dim=0, correction=0)
        if not bool((deviation > 0).all()):
            raise InputError("expected latents that vary in every channel, got a constant one")
        self.mean.copy_(vectors.mean(dim=0))
        self.scale.copy_(1 / deviation)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., dim]`."""
        boundaries = torch.tensor([(low + high) / 2 for low, high in pairwise(self.levels)], device=z.device)
        return torch.bucketize(((self.check_latent(z) - self.mean) * self.scale).contiguous(), boundaries)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., dim]` to latents `[..., dim]`."""
        return self._values(self.check_codes(codes))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        codes = self.encode(z)
        quantized = straight_through(self.check_latent(z), self._values(codes).float())
        return QuantizerOutput(quantized.to(z.dtype), codes, {})

    def _values(self, codes: Tensor) -> Tensor:
        return torch.tensor(self.levels, device=codes.device)[codes] / self.scale + self.mean


def normal_levels(number: int, normal_range: float) -> list[float]:
    """Means of a standard normal inside `number` cells of equal probability, clamped to ±`normal_range`."""
    normal = NormalDist()
    if 1 / number <= normal.cdf(-normal_range):
        raise InputError(
            f"expected 2^bits below {int(1 / normal.cdf(-normal_range))} levels for normal_range {normal_range} "
            f"(further cells lie beyond it and are empty), got {number}"
        )
    inner = [normal.inv_cdf(cell / number) for cell in range(1, number)]
    edges = [-normal_range, *(min(max(edge, -normal_range), normal_range) for edge in inner), normal_range]
    return [
        (normal.pdf(low) - normal.pdf(high)) / (normal.cdf(high) - normal.cdf(low)) for low, high in pairwise(edges)
    ]
