"""Index backpropagation quantization."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, without_autocast
from zoo.quantizers.entropy import codebook_entropy_loss
from zoo.quantizers.nearest import most_similar_code


class IBQ(Quantizer):
    """Each vector becomes the codebook row with the largest inner product, and every training step moves all rows.

    Source: IBQ (arXiv 2412.02692). The straight-through estimator is applied to the one-hot vector over codes, whose
    gradient is that of softmax(z·e), and not to the vector: so the gradient reaches the latents, and through the
    products every row. Rows are compared and returned as they are stored, of any length.

    No tensor of the size vectors × codes ever exists: memory grows with the number of codes only as the codebook does.

    Args:
        dim: length of a vector.
        codebook_size: number of rows.
        temperature: temperature of the soft assignment in the entropy term, softmax(z·e / temperature).

    Losses, with q the row with the gradient described above and e the row alone: `index_loss` = mean (z - q)²,
    `commitment_loss` = mean (z - sg(e))², `codebook_loss` = mean (sg(z) - e)², `entropy_loss` = mean entropy of the
    soft assignments minus the entropy of their mean.
    """

    def __init__(self, dim: int, codebook_size: int, *, temperature: float = 0.01):
        if dim < 1 or codebook_size < 1:
            raise InputError(f"expected dim and codebook_size of at least 1, got {dim} and {codebook_size}")
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        super().__init__(dim, (codebook_size,))
        self.temperature = temperature
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        return most_similar_code(self.check_latent(z), self.codebook)[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to codebook rows `[..., dim]`."""
        return functional.embedding(self.check_codes(codes)[..., 0], self.codebook)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            codebook = self.codebook.float()
            codes = most_similar_code(latent, codebook)
            rows = quantized = functional.embedding(codes, codebook)
            if self.training or latent.requires_grad:
                mean_row = soft_rows(latent, codebook)
                quantized = rows + (mean_row - mean_row.detach())
            losses = {}
            if self.training:
                losses["index_loss"] = functional.mse_loss(latent, quantized)
                losses["commitment_loss"] = functional.mse_loss(latent, rows.detach())
                losses["codebook_loss"] = functional.mse_loss(rows, latent.detach())
                losses["entropy_loss"] = codebook_entropy_loss(latent, codebook, scale=1 / self.temperature)
            return QuantizerOutput(quantized.to(z.dtype), codes[..., None], losses)


def soft_rows(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the mean row of each vector under softmax(z·e), with the gradient of the softmax alone.

    This is attention of the vectors to the codebook, which PyTorch computes tile by tile, also in the backward pass.
    Rows as values have no gradient: for them, the one-hot vector has its value, which picks a single row.

    Args:
        z: float32 `[..., dim]`. codebook: float32 `[codebook_size, dim]`.
    """
    queries = z.reshape(1, 1, -1, z.shape[-1])
    keys = codebook[None, None]
    return functional.scaled_dot_product_attention(queries, keys, keys.detach(), scale=1.0).reshape(z.shape)
