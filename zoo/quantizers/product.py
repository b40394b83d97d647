"""Product vector quantization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput
from zoo.quantizers.residual import mean_losses
from zoo.quantizers.vector import VectorQuantizer, vector_quantizers


class ProductVQ(Quantizer):
    """Channels are split evenly into neighbouring parts, each with a codebook of its own.

    Source: product quantization (Jégou 2011, IEEE TPAMI 33(1)), with the codebooks of VQ-VAE.

    Args:
        dim: channels; a multiple of the number of codebooks.
        codebook_sizes: number of rows of each codebook, in the order of the parts.
        options: options of `VectorQuantizer`, for every codebook.

    Losses: those of `VectorQuantizer`, averaged over codebooks.
    """

    def __init__(self, dim: int, codebook_sizes: Sequence[int], **options: Any):
        if not codebook_sizes or dim % len(codebook_sizes):
            raise InputError(
                f"expected dim as a multiple of the number of codebooks, got dim {dim}, "
                f"codebook_sizes {list(codebook_sizes)}"
            )
        super().__init__(dim, tuple(codebook_sizes))
        part = dim // len(codebook_sizes)
        self.layers = nn.ModuleList(VectorQuantizer(part, size, **options) for size in codebook_sizes)

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]`."""
        parts = self.check_latent(z).chunk(self.num_codebooks, dim=-1)
        layers = vector_quantizers(self.layers)
        return torch.cat([layer.encode(part) for layer, part in zip(layers, parts, strict=True)], dim=-1)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_codebooks]` to the rows side by side, `[..., dim]`."""
        indices = self.check_codes(codes).split(1, dim=-1)
        layers = vector_quantizers(self.layers)
        rows = [layer.codes_to_latent(index) for layer, index in zip(layers, indices, strict=True)]
        return torch.cat(rows, dim=-1)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        outputs = self.quantize_parts(z)
        return QuantizerOutput(
            torch.cat([output.quantized for output in outputs], dim=-1).to(z.dtype),
            torch.cat([output.codes for output in outputs], dim=-1),
            mean_losses(outputs),
        )

    def quantize_parts(self, z: Tensor) -> list[QuantizerOutput]:
        """Return the output of each part's quantizer for latents `[..., dim]`, in float32."""
        parts = self.check_latent(z).chunk(self.num_codebooks, dim=-1)
        return [layer(part) for layer, part in zip(self.layers, parts, strict=True)]
