"""Vector quantization in a space of few dimensions, compared by angle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.layers.weight_norm import WeightNormLinear
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.nearest import nearest_code


class ProjectedVQ(Quantizer):
    """A vector is projected to few dimensions, becomes the row of the largest cosine there, and is projected back.

    Source: factorized codes (arXiv 2110.04627) as Descript's codec has them (arXiv 2306.06546), with weight-normalised
    projections. The row is returned as it is stored, of any length: only the comparison is one of angles.

    Args:
        dim: length of a vector.
        codebook_size: number of rows.
        codebook_dim: length of a row.

    Losses, with p the projected vector and e its row, both of `codebook_dim`: `commitment_loss` = mean (p - sg(e))²,
    `codebook_loss` = mean (sg(p) - e)².
    """

    def __init__(self, dim: int, codebook_size: int, codebook_dim: int):
        if min(dim, codebook_size, codebook_dim) < 1:
            raise InputError(
                f"expected dim, codebook_size and codebook_dim >= 1, got {dim}, {codebook_size} and {codebook_dim}"
            )
        super().__init__(dim, (codebook_size,))
        self.project_in = WeightNormLinear(dim, codebook_dim)
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dim))
        self.project_out = WeightNormLinear(codebook_dim, dim)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        with without_autocast(z):
            return self._nearest(self.project_in(self.check_latent(z)))[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to projected rows, `[..., dim]`."""
        return self.project_out(self._rows(self.check_codes(codes)[..., 0])).to(self.codebook.dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            projected = self.project_in(self.check_latent(z))
            codes = self._nearest(projected)
            rows = self._rows(codes)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(projected, rows.detach())
                losses["codebook_loss"] = functional.mse_loss(rows, projected.detach())
            quantized = self.project_out(straight_through(projected, rows.detach()))
            return QuantizerOutput(quantized.to(z.dtype), codes[..., None], losses)

    def _nearest(self, projected: Tensor) -> Tensor:
        return nearest_code(
            functional.normalize(projected, dim=-1), functional.normalize(self.codebook.float(), dim=-1)
        )

    def _rows(self, codes: Tensor) -> Tensor:
        return functional.embedding(codes, self.codebook).float()
