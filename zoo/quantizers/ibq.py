"""Index backpropagation quantization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers import soft_assignment
from zoo.quantizers.base import Quantizer, QuantizerOutput, without_autocast
from zoo.quantizers.entropy import add_entropy_gradients, difference_of_entropies
from zoo.quantizers.nearest import most_similar_code


class IBQ(Quantizer):
    """Each vector becomes the codebook row with the largest inner product, and every training step moves all rows.

    Source: IBQ (arXiv 2412.02692). The straight-through estimator is applied to the one-hot vector over codes, whose
    gradient is that of softmax(z·e), and not to the vector: so the gradient reaches the latents, and through the
    products every row. Rows are compared and returned as they are stored, of any length.

    Memory grows with the number of codes only by the codebook and one gradient of it: what exists for vectors and codes
    exists tile by tile.

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
            if not (self.training or latent.requires_grad):
                quantized = functional.embedding(codes, codebook)
                return QuantizerOutput(quantized.to(z.dtype), codes[..., None], {})
            vectors = latent.reshape(-1, self.dim)
            rows, quantized, entropy, probability = IndexBackpropagation.apply(
                vectors, codebook, codes.flatten(), 1 / self.temperature if self.training else None
            )
            losses = {}
            if self.training:
                losses["index_loss"] = functional.mse_loss(vectors, quantized)
                losses["commitment_loss"] = functional.mse_loss(vectors, rows.detach())
                losses["codebook_loss"] = functional.mse_loss(rows, vectors.detach())
                losses["entropy_loss"] = difference_of_entropies(entropy, probability, len(vectors))
            quantized = quantized.reshape(latent.shape)
            return QuantizerOutput(quantized.to(z.dtype), codes[..., None], losses)


class IndexBackpropagation(torch.autograd.Function):
    """The chosen rows, once by themselves and once as the one-hot vector with softmax's gradient picks them; sums.

    In one function, so that all gradients of the codebook are added in one place.

    Args:
        vectors: float32 `[vectors, dim]`. codebook: float32 `[codes, dim]`. chosen: int64 `[vectors]`.
        scale: factor of the products in the softmax of the sums; None: they are 0.

    Returns:
        `[vectors, dim]` twice, and the sums of `SumOverAssignments`.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, codebook: Tensor, chosen: Tensor, scale: float | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)  # so that nothing is computed for an output that no loss uses
        rows = functional.embedding(chosen, codebook)
        if scale is None:
            ctx.save_for_backward(vectors, codebook, chosen)
            return rows, rows.clone(), vectors.new_zeros(()), vectors.new_zeros(len(codebook))
        scaled = scale * vectors
        normalizer = soft_assignment.normalizers(scaled, codebook)
        ctx.save_for_backward(vectors, codebook, chosen, normalizer)
        return rows, rows.clone(), *soft_assignment.sums(scaled, codebook, normalizer)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        of_rows: Tensor | None,
        of_quantized: Tensor | None,
        of_entropy: Tensor | None,
        of_probability: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        vectors, codebook, chosen, *of_scaled = ctx.saved_tensors
        to_vectors, to_codebook = torch.zeros_like(vectors), torch.zeros_like(codebook)
        with without_autocast(vectors):
            if of_entropy is not None and of_probability is not None:
                (normalizer,), scaled = of_scaled, ctx.scale * vectors
                gradients = of_entropy, of_probability, to_vectors, to_codebook
                add_entropy_gradients(scaled, codebook, normalizer, *gradients)
                to_vectors *= ctx.scale
            if of_quantized is not None:
                add_softmax_gradients(vectors, codebook, of_quantized, to_vectors, to_codebook)
                to_codebook.index_add_(0, chosen, of_quantized)
            if of_rows is not None:
                to_codebook.index_add_(0, chosen, of_rows)
        moves_vectors = of_quantized is not None or of_entropy is not None
        return to_vectors if moves_vectors else None, to_codebook, None, None


def add_softmax_gradients(
    vectors: Tensor, codebook: Tensor, of_quantized: Tensor, to_vectors: Tensor, to_codebook: Tensor
) -> None:
    """Add the gradients of the rows' mean under the softmax; rows as values have none: the one-hot vector has its own.

    Args:
        of_quantized: gradient of the mean, `[vectors, dim]`. The others are as in `soft_assignment.add_gradients`.
    """

    def values(v: slice, r: slice, logarithm: Tensor) -> Tensor:
        return of_quantized[v] @ codebook[r].T

    normalizer = soft_assignment.normalizers(vectors, codebook)
    soft_assignment.add_gradients(vectors, codebook, normalizer, values, to_vectors, to_codebook)
