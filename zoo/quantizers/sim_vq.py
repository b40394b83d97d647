"""Vector quantization with a frozen codebook and a learned linear map of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.nearest import nearest_code


class SimVQ(Quantizer):
    """The codebook is a fixed random matrix times a learned one, so that every training step moves every row.

    Source: SimVQ (arXiv 2411.02038).

    Args:
        dim: length of a vector.
        codebook_size: number of rows.

    Losses: `commitment_loss` = mean (z - sg(q))², `codebook_loss` = mean (sg(z) - q)².
    """

    codebook: Tensor

    def __init__(self, dim: int, codebook_size: int):
        if dim < 1 or codebook_size < 1:
            raise InputError(f"expected dim and codebook_size >= 1, got {dim} and {codebook_size}")
        super().__init__(dim, (codebook_size,))
        self.register_buffer("codebook", torch.randn(codebook_size, dim) * dim**-0.5)
        self.transform = nn.Linear(dim, dim, bias=False)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        with without_autocast(z):
            return nearest_code(self.check_latent(z), self._transform(self.codebook))[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to transformed rows, `[..., dim]`."""
        return self._rows(self.check_codes(codes)).to(self.codebook.dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            codes = self.encode(latent)
            quantized = self._rows(codes)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(latent, quantized.detach())
                losses["codebook_loss"] = functional.mse_loss(quantized, latent.detach())
            quantized = straight_through(latent, quantized.detach())
            return QuantizerOutput(quantized.to(z.dtype), codes, losses)

    def _rows(self, codes: Tensor) -> Tensor:
        return self._transform(functional.embedding(codes[..., 0], self.codebook))

    def _transform(self, rows: Tensor) -> Tensor:
        return functional.linear(rows.float(), self.transform.weight.float())
