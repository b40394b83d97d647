"""Several codebooks addressed by one index (TokenFlow)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.nearest import nearest_code


class SharedMappingVQ(Quantizer):
    """Each part of the latent (semantic, pixel) has its own codebook, and one index chooses a row in all of them.

    Source: TokenFlow (arXiv 2412.03069). Each part and each row is divided by its norm; the index minimises
    the sum over parts of the squared distances. The unit rows are returned side by side.

    Args:
        dims: channels of each part, in the order of the latent's channels.
        codebook_size: number of rows of every codebook.

    Losses, with u the unit parts and e their rows, over all channels: `commitment_loss` = mean (u - sg(e))²,
    `codebook_loss` = mean (sg(u) - e)².
    """

    def __init__(self, dims: Sequence[int], codebook_size: int):
        if not dims or min(dims) < 1 or codebook_size < 1:
            raise InputError(f"expected dims and codebook_size >= 1, got {list(dims)} and {codebook_size}")
        super().__init__(sum(dims), (codebook_size,))
        self.dims = tuple(dims)
        self.codebooks = nn.ParameterList(
            nn.Parameter(torch.empty(codebook_size, dim).uniform_(-1 / codebook_size, 1 / codebook_size))
            for dim in dims
        )

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., sum(dims)]` to codes int64 `[..., 1]`."""
        rows = self._normalise(torch.cat(list(self.codebooks), dim=-1).float())
        return nearest_code(self._normalise(self.check_latent(z)), rows)[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to the unit rows side by side, `[..., sum(dims)]`."""
        return self._rows(self.check_codes(codes)).to(self.codebooks[0].dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., sum(dims)]` to `QuantizerOutput`."""
        with without_autocast(z):
            codes = self.encode(z)
            latent = self._normalise(self.check_latent(z))
            quantized = self._rows(codes)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(latent, quantized.detach())
                losses["codebook_loss"] = functional.mse_loss(quantized, latent.detach())
            quantized = straight_through(latent, quantized.detach())
            return QuantizerOutput(quantized.to(z.dtype), codes, losses)

    def _rows(self, codes: Tensor) -> Tensor:
        rows = [functional.embedding(codes[..., 0], codebook) for codebook in self.codebooks]
        return self._normalise(torch.cat(rows, dim=-1).float())

    def _normalise(self, vectors: Tensor) -> Tensor:
        parts = vectors.split(self.dims, dim=-1)
        return torch.cat([functional.normalize(part, dim=-1) for part in parts], dim=-1)
