"""Residual vector quantization."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, distributed, nn

from zoo.errors import InputError
from zoo.quantizers.base import QuantizerOutput, ResidualQuantizer, straight_through
from zoo.quantizers.vector import VectorQuantizer, is_distributed, vector_quantizers


class ResidualVQ(ResidualQuantizer):
    """Each codebook quantizes the residual of the ones before it; the result is the sum of the rows.

    Source: SoundStream (arXiv 2107.03312). The first few codes are a coarser code of the same latent.

    Args:
        dim: length of a vector.
        codebook_size: number of rows of each codebook; one number for all, or one for each.
        num_quantizers: number of codebooks.
        quantizer_dropout: whether each training batch uses the first n codebooks only, with n drawn uniformly
            from 1 to `num_quantizers` (the same on all ranks); the others do not move, and the output has n codes.
        options: options of `VectorQuantizer`, for every codebook.

    Losses: those of `VectorQuantizer`, averaged over the codebooks used. The commitment term of every codebook
    reaches z (in some published code only that of the first one does).
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int | Sequence[int],
        num_quantizers: int,
        *,
        quantizer_dropout: bool = False,
        **options: Any,
    ):
        sizes = (codebook_size,) * num_quantizers if isinstance(codebook_size, int) else tuple(codebook_size)
        if num_quantizers < 1 or len(sizes) != num_quantizers:
            raise InputError(
                f"expected one codebook size, or one for each of num_quantizers >= 1 codebooks, got "
                f"codebook_size {codebook_size}, num_quantizers {num_quantizers}"
            )
        super().__init__(dim, sizes)
        self.quantizer_dropout = quantizer_dropout
        self.layers = nn.ModuleList(VectorQuantizer(dim, size, **options) for size in sizes)

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all)."""
        residual = self.check_latent(z)
        codes = []
        for layer in vector_quantizers(self.layers)[: self.check_number(num_codebooks)]:
            codes.append(layer.encode(residual))
            residual = residual - layer.lookup(codes[-1][..., 0])
        return torch.cat(codes, dim=-1)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., n]` of the first n codebooks to the sum of their rows, `[..., dim]`."""
        codes = self.check_codes(codes)
        layers = vector_quantizers(self.layers)[: codes.shape[-1]]
        rows = (layer.codes_to_latent(index) for layer, index in zip(layers, codes.split(1, dim=-1), strict=True))
        return reduce(torch.add, rows)  # one after the other: all of them would take much memory

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; codes `[..., n]` with dropout in training mode."""
        latent = residual = self.check_latent(z)
        outputs = []
        for layer in self.layers[: self._num_used(z.device)]:
            outputs.append(layer(residual))
            residual = residual - outputs[-1].quantized.detach()
        quantized = reduce(torch.add, [output.quantized.detach() for output in outputs])
        return QuantizerOutput(
            straight_through(latent, quantized).to(z.dtype),
            torch.cat([output.codes for output in outputs], dim=-1),
            mean_losses(outputs),
        )

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Return rows `[..., dim]` of the first codebook, with the gradient of `quantized`; InputError for another.

        The first codebook is always in use, even with `quantizer_dropout`, and is a coarse code by itself.
        """
        if codebook != 0:
            raise InputError(f"expected codebook 0, the first of residual codebooks, got {codebook}")
        return straight_through(
            quantized, vector_quantizers(self.layers)[0].lookup(codes[..., 0]).detach().to(quantized.dtype)
        )

    def _num_used(self, device: torch.device) -> int:
        if not (self.training and self.quantizer_dropout):
            return self.num_codebooks
        number = torch.randint(1, self.num_codebooks + 1, (1,), device=device)
        if is_distributed():
            distributed.broadcast(number, src=0)
        return int(number)


def mean_losses(outputs: Sequence[QuantizerOutput]) -> dict[str, Tensor]:
    """Return each loss averaged over the outputs."""
    return {name: total_loss(name, outputs) / len(outputs) for name in outputs[0].losses}


def total_loss(name: str, outputs: Sequence[QuantizerOutput]) -> Tensor:
    """Return the sum of one loss over the outputs."""
    return reduce(torch.add, [output.losses[name] for output in outputs])
