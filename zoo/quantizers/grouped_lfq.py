"""Group-wise lookup-free quantization (WeTok)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.bits import (
    bits_to_codes,
    codes_to_signs,
    distribution_entropy,
    mean_assignment_entropy,
    mean_distribution,
)


class GroupedLFQ(Quantizer):
    """Each channel becomes its sign; each group of channels is one code.

    Source: WeTok (arXiv 2508.05599), after LFQ of MAGVIT-v2 (arXiv 2310.05737).

    Channel c belongs to group c // (dim / num_groups); the first channel of a group is the least significant
    bit of its code. A positive value is +1, anything else (zero too) -1. Nothing is learned or stored.

    Args:
        dim: channels; a multiple of `num_groups`.
        num_groups: codes per position, each one of 2^(dim / num_groups).
        temperature: of the soft assignment in the entropy term.

    Losses: `commitment_loss` = mean (z - sg(q))²; `entropy_loss` = mean entropy of the soft assignments minus the
    entropy of their mean, where the mean is one histogram over all positions and groups.
    """

    def __init__(self, dim: int, num_groups: int, *, temperature: float = 0.01):
        if num_groups < 1 or dim < 1 or dim % num_groups:
            raise InputError(
                f"expected dim to be a multiple of num_groups, got dim {dim}, num_groups {num_groups}"
            )
        self.group_bits = dim // num_groups
        super().__init__(dim, (2**self.group_bits,) * num_groups)
        if self.group_bits > 20:
            raise InputError(
                f"expected groups of at most 20 channels (their histogram is enumerated), got {self.group_bits}"
            )
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        self.num_groups = num_groups
        self.temperature = temperature

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_groups]`."""
        return bits_to_codes((self.check_latent(z) > 0).unflatten(-1, (self.num_groups, self.group_bits)))

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_groups]` to signs, float32 `[..., dim]`."""
        return codes_to_signs(self.check_codes(codes), self.group_bits).flatten(-2)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            quantized = torch.where(latent > 0, 1.0, -1.0)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(latent, quantized)
                losses["entropy_loss"] = self._entropy_loss(latent)
            return QuantizerOutput(straight_through(latent, quantized).to(z.dtype), self.encode(z), losses)

    def _entropy_loss(self, latent: Tensor) -> Tensor:
        logits = 4 / self.temperature * latent.reshape(-1, self.group_bits)
        return mean_assignment_entropy(logits) - distribution_entropy(mean_distribution(logits))
