"""Binary spherical quantization."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.bits import codes_to_signs, signs_to_codes
from zoo.quantizers.entropy import marginal_sign_entropy_loss


class BSQ(Quantizer):
    """A vector is projected onto the unit sphere and becomes the nearest corner ±1/√dim of the cube inside it.

    Source: BSQ-ViT (arXiv 2406.07548), whose authors make the first channel the most significant bit.

    Args:
        dim: channels; a multiple of `num_groups`.
        num_groups: codes per position, each of dim / num_groups bits, at most 62.
        temperature: temperature of the soft assignment in the entropy term: with u = z / |z|, P(+1) =
            sigmoid(4 u / (√dim temperature)).
        bit_order: "little": the first channel of a group is the least significant bit of its code; "big": the most.

    Losses: `commitment_loss` = mean (u - sg(q))²; `entropy_loss` = mean entropy of the soft assignments minus
    the sum of the entropies of the bits' mean probabilities (the paper's factorised approximation).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_groups: int = 1,
        temperature: float = 0.01,
        bit_order: Literal["little", "big"] = "little",
    ):
        if bit_order not in ("little", "big"):
            raise InputError(f"expected bit_order 'little' or 'big', got {bit_order!r}")
        if dim < 1 or num_groups < 1 or dim % num_groups:
            raise InputError(f"expected dim as a multiple of num_groups, got dim {dim}, num_groups {num_groups}")
        group_bits = dim // num_groups
        if group_bits > 62:
            raise InputError(
                f"expected at most 62 channels a code (an int64), got {group_bits}; give num_groups for more"
            )
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        super().__init__(dim, (2**group_bits,) * num_groups)
        self.num_groups = num_groups
        self.group_bits = group_bits
        self.temperature = temperature
        self.bit_order = bit_order

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_groups]`."""
        return signs_to_codes(
            self._ordered((self.check_latent(z) > 0).unflatten(-1, (self.num_groups, self.group_bits)))
        )

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_groups]` to corners, float32 `[..., dim]`."""
        return self._corners(self.check_codes(codes))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            codes = self.encode(z)
            latent = functional.normalize(self.check_latent(z), dim=-1)
            quantized = self._corners(codes)
            losses = {}
            if self.training:
                logits = 4 / (self.dim**0.5 * self.temperature) * latent.reshape(-1, self.dim)
                losses["commitment_loss"] = functional.mse_loss(latent, quantized)
                losses["entropy_loss"] = marginal_sign_entropy_loss(logits)
            return QuantizerOutput(straight_through(latent, quantized).to(z.dtype), codes, losses)

    def _corners(self, codes: Tensor) -> Tensor:
        return self._ordered(codes_to_signs(codes, self.group_bits)).flatten(-2) / self.dim**0.5

    def _ordered(self, bits: Tensor) -> Tensor:
        return bits.flip(-1) if self.bit_order == "big" else bits
