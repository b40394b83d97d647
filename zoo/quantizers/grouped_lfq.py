"""Group-wise lookup-free quantization (WeTok)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.bits import codes_to_signs, signs_to_codes
from zoo.quantizers.entropy import sign_entropy_loss


class GroupedLFQ(Quantizer):
    """Each channel becomes its sign, and each group of neighbouring channels one code.

    Source: WeTok (arXiv 2508.05599), after LFQ of MAGVIT-v2 (arXiv 2310.05737).

    Channel c belongs to group c // (dim / num_groups); the first channel of a group is the least significant
    bit of its code. A positive value is +1, anything else (zero too) -1. Nothing is learned or stored.

    Args:
        dim: channels; a multiple of `num_groups`.
        num_groups: codes per position, each one of 2^(dim / num_groups), at most 2^62.
        temperature: temperature of the soft assignment in the entropy term: P(+1) = sigmoid(4 z / temperature).

    Losses: `commitment_loss` = mean (z - sg(q))²; `entropy_loss` = mean entropy of the soft assignments minus
    the entropy of their mean, which is one histogram for all positions and groups (for groups of more than 20 bits
    its upper bound, from the bits' mean probabilities).
    """

    def __init__(self, dim: int, num_groups: int, *, temperature: float = 0.01):
        if dim < 1 or num_groups < 1 or dim % num_groups:
            raise InputError(f"expected dim as a multiple of num_groups, got dim {dim}, num_groups {num_groups}")
        group_bits = dim // num_groups
        if group_bits > 62:
            raise InputError(f"expected at most 62 channels a group (a code is an int64), got {group_bits}")
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        super().__init__(dim, (2**group_bits,) * num_groups)
        self.num_groups = num_groups
        self.group_bits = group_bits
        self.temperature = temperature

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_groups]`."""
        return signs_to_codes((self.check_latent(z) > 0).unflatten(-1, (self.num_groups, self.group_bits)))

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
                logits = 4 / self.temperature * latent.reshape(-1, self.group_bits)
                losses["commitment_loss"] = functional.mse_loss(latent, quantized)
                losses["entropy_loss"] = sign_entropy_loss(logits)
            return QuantizerOutput(straight_through(latent, quantized).to(z.dtype), self.encode(z), losses)
