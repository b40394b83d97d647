"""Factorized vector quantization with disentangled codebooks (FQGAN)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import QuantizerOutput, without_autocast
from zoo.quantizers.entropy import codebook_entropy_loss
from zoo.quantizers.product import ProductVQ
from zoo.quantizers.residual import total_loss
from zoo.quantizers.vector import vector_quantizers


class FactorizedVQ(ProductVQ):
    """Unit-norm codebooks side by side, one for each equal part of the channels, pushed apart in training.

    Source: FQGAN (arXiv 2411.16681). Each part and each row is divided by its norm before the nearest row is
    looked for, and unit rows are returned.

    Args:
        dim: channels of all parts together; a multiple of the number of codebooks.
        codebook_sizes: number of rows of each codebook, in the order of the parts; at least two.
        temperature: temperature of the soft assignment in the entropy term, softmax(-squared distance / temperature).

    Losses, with u the unit parts and e their rows, the first three summed over codebooks as in the published code:
    `commitment_loss` = mean (u - sg(e))², `codebook_loss` = mean (sg(u) - e)², `entropy_loss` = mean entropy
    of the soft assignments minus the entropy of their mean, `disentanglement_loss` = mean over positions and
    pairs of codebooks of the squared inner product of the straight-through rows.
    """

    def __init__(self, dim: int, codebook_sizes: Sequence[int], *, temperature: float = 0.01):
        if len(codebook_sizes) < 2:
            raise InputError(f"expected two codebooks or more, got codebook_sizes {list(codebook_sizes)}")
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        super().__init__(dim, codebook_sizes, distance="cosine")
        self.temperature = temperature

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            outputs = self.quantize_parts(z)
            losses: dict[str, Tensor] = {}
            if self.training:
                parts = self.check_latent(z).chunk(self.num_codebooks, dim=-1)
                for name in ("commitment_loss", "codebook_loss"):
                    losses[name] = total_loss(name, outputs)
                entropies = [
                    codebook_entropy_loss(functional.normalize(part, dim=-1), layer.rows(), scale=2 / self.temperature)
                    for part, layer in zip(parts, vector_quantizers(self.layers), strict=True)
                ]
                losses["entropy_loss"] = reduce(torch.add, entropies)
                overlaps = [
                    (one.quantized * other.quantized).sum(dim=-1).square().mean()
                    for one, other in combinations(outputs, 2)
                ]
                losses["disentanglement_loss"] = reduce(torch.add, overlaps) / len(overlaps)
            return QuantizerOutput(
                torch.cat([output.quantized for output in outputs], dim=-1).to(z.dtype),
                torch.cat([output.codes for output in outputs], dim=-1),
                losses,
            )
