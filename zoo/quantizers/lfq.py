"""Lookup-free quantization."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers.grouped_lfq import GroupedLFQ


class LFQ(GroupedLFQ):
    """Each channel becomes its sign, and all signs together one code of 2^dim.

    Source: MAGVIT-v2 (arXiv 2310.05737), as in Open-MAGVIT2 (arXiv 2409.04410): channel 0 is the least
    significant bit, and zero becomes -1. There is no table of codewords, so dim may be up to 62.

    Args:
        dim: channels.
        temperature: temperature of the soft assignment in the entropy term: P(+1) = sigmoid(4 z / temperature).
        bit_order: "little": channel 0 is the least significant bit of a code; "big": the most significant.

    Losses: `commitment_loss` = mean (z - sg(q))²; `entropy_loss` = mean entropy of the soft assignments minus
    the entropy of their mean. Up to 20 bits both are exact, over all 2^dim codes; above, the second is
    replaced by its upper bound, the sum of the entropies of the bits' mean probabilities.
    """

    def __init__(self, dim: int, *, temperature: float = 0.01, bit_order: Literal["little", "big"] = "little"):
        if bit_order not in ("little", "big"):
            raise InputError(f"expected bit_order 'little' or 'big', got {bit_order!r}")
        super().__init__(dim, num_groups=1, temperature=temperature)
        self.bit_order = bit_order

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        return super().encode(z.flip(-1) if self.bit_order == "big" else z)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to signs, float32 `[..., dim]`."""
        signs = super().codes_to_latent(codes)
        return signs.flip(-1) if self.bit_order == "big" else signs
