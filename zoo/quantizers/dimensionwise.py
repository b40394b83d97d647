"""Quantization of each channel after training (TokenBridge)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through


class DimensionwiseQuantizer(Quantizer):
    """Each channel becomes a code: the nearest of 2^bits fixed levels, placed as for a Gaussian.

    Source: TokenBridge (arXiv 2503.16430). A normal distribution is cut into 2^bits cells of equal probability,
    with edges clamped to ±`normal_range`; a level is the mean of its cell, times `value_range` / `normal_range`.
    Latents are first brought to zero mean and unit deviation, (z - mean) * scale; levels are brought back the other
    way. On a tie the lower level is taken. Nothing is learned and nothing is saved: mean and scale are constants,
    which `zoo.discretize` measures.

    Args:
        dim: channels, and codes per position.
        bits: bits of each code.
        value_range: the value of a latent of unit deviation that `normal_range` is scaled to. At 6 bits the last
            level is 0.81 `value_range`.
        normal_range: standard deviations that the edges of the cells are clamped to.
        mean: mean of the latents, one number for all channels or one for each.
        scale: reciprocal of the latents' standard deviation, one number for all channels or one for each.

    There are no losses.
    """

    def __init__(
        self,
        dim: int,
        *,
        bits: int = 6,
        value_range: float = 5.0,
        normal_range: float = 3.0,
        mean: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
    ):
        if min(dim, bits, value_range, normal_range) <= 0:
            raise InputError(
                f"expected positive dim, bits, value_range and normal_range, got {dim}, {bits}, {value_range} "
                f"and {normal_range}"
            )
        super().__init__(dim, (2**bits,) * dim)
        self.levels = [level * value_range / normal_range for level in normal_levels(2**bits, normal_range)]
        self.boundaries = [(low + high) / 2 for low, high in pairwise(self.levels)]
        # Not buffers: those would be rounded with the weights when a network is cast to half precision.
        self.mean = per_channel("mean", mean, dim)
        self.scale = per_channel("scale", scale, dim)
        if min(self.scale) <= 0:
            raise InputError(f"expected a positive scale, got {min(self.scale)}")

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., dim]`."""
        z = self.check_latent(z)
        mean, scale, boundaries = tensors(z.device, self.mean, self.scale, self.boundaries)
        return torch.bucketize(((z - mean) * scale).contiguous(), boundaries)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., dim]` to latents `[..., dim]`."""
        return self._values(self.check_codes(codes))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        codes = self.encode(z)
        quantized = straight_through(self.check_latent(z), self._values(codes))
        return QuantizerOutput(quantized.to(z.dtype), codes, {})

    def _values(self, codes: Tensor) -> Tensor:
        mean, scale, levels = tensors(codes.device, self.mean, self.scale, self.levels)
        return levels[codes] / scale + mean


def per_channel(name: str, value: float | Sequence[float], dim: int) -> tuple[float, ...]:
    """Return `value` for each of `dim` channels; raise InputError unless it is one finite number or `dim` of them."""
    values = tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * dim
    if len(values) != dim or not all(map(math.isfinite, values)):
        raise InputError(f"expected {name} as one finite number or {dim}, got {value}")
    return values


def tensors(device: torch.device, *values: Sequence[float]) -> list[Tensor]:
    """Return numbers as float32 tensors."""
    return [torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in values]


def normal_levels(number: int, normal_range: float) -> list[float]:
    """Return the means of a standard normal in `number` cells of equal probability, clamped to ±`normal_range`."""
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
