"""Residual vector quantization behind linear projections, and the split one of Mimi."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.layers.weight_norm import WeightNormLinear
from zoo.quantizers.base import QuantizerOutput, ResidualQuantizer, straight_through, without_autocast
from zoo.quantizers.residual import ResidualVQ


class ProjectedResidualVQ(ResidualQuantizer):
    """Residual codebooks of fewer channels than the latent, between two linear projections.

    Sources: SoundStream (arXiv 2107.03312), Moshi (arXiv 2410.00037).

    Args:
        dim: channels of the latent.
        codebook_dim: length of a codebook row.
        codebook_size, num_quantizers, options: as in `ResidualVQ`.
        weight_norm: whether the projections are weight-normalised and have a bias, as those of XY-Tokenizer; otherwise
            they have none.

    Losses: those of `ResidualVQ`, between the projected latent and the codebooks' rows.
    """

    def __init__(
        self,
        dim: int,
        codebook_dim: int,
        codebook_size: int,
        num_quantizers: int,
        *,
        weight_norm: bool = False,
        **options: Any,
    ):
        super().__init__(dim, (codebook_size,) * num_quantizers)
        linear = WeightNormLinear if weight_norm else partial(nn.Linear, bias=False)
        self.project_in = linear(dim, codebook_dim)
        self.residual = ResidualVQ(codebook_dim, codebook_size, num_quantizers, **options)
        self.project_out = linear(codebook_dim, dim)

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all)."""
        with without_autocast(z):
            return self.residual.encode(self._inside(z), num_codebooks)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., n]` of the first n codebooks to the projected sum of their rows, `[..., dim]`."""
        return self._outside(self.residual.codes_to_latent(self.check_codes(codes))).to(self.project_out.weight.dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; codes `[..., n]` with dropout in training mode."""
        with without_autocast(z):
            quantized, codes, losses = self.residual(self._inside(z))
            return QuantizerOutput(self._outside(quantized).to(z.dtype), codes, losses)

    def _inside(self, z: Tensor) -> Tensor:
        return project(self.project_in, self.check_latent(z))

    def _outside(self, rows: Tensor) -> Tensor:
        with without_autocast(rows):
            return project(self.project_out, rows)


def project(linear: nn.Linear | WeightNormLinear, x: Tensor) -> Tensor:
    """Apply a projection in float32, whatever the type of its parameters."""
    bias = None if linear.bias is None else linear.bias.float()
    return functional.linear(x.float(), linear.weight.float(), bias)


class SplitResidualVQ(ResidualQuantizer):
    """One codebook beside residual ones, each part with its own projections; the result is the sum of both.

    Source: Moshi (arXiv 2410.00037). Both parts quantize the same latent: the residual codebooks do not see what the
    first one leaves. The first one can be taught something of its own, such as what is said in speech.

    Args:
        dim: channels of the latent.
        codebook_dim: length of a codebook row.
        codebook_size: number of rows of each codebook.
        num_quantizers: number of codebooks of both parts together, at least two.
        quantizer_dropout: whether each training batch uses the first few of the residual codebooks only, as in
            `ResidualVQ`.
        options: options of `VectorQuantizer`, for every codebook.

    Losses: those of `ResidualVQ`, averaged over all codebooks.
    """

    def __init__(
        self,
        dim: int,
        codebook_dim: int,
        codebook_size: int,
        num_quantizers: int,
        *,
        quantizer_dropout: bool = False,
        **options: Any,
    ):
        if num_quantizers < 2:
            raise InputError(f"expected num_quantizers of at least 2, got {num_quantizers}")
        super().__init__(dim, (codebook_size,) * num_quantizers)
        self.first = ProjectedResidualVQ(dim, codebook_dim, codebook_size, 1, **options)
        self.rest = ProjectedResidualVQ(
            dim, codebook_dim, codebook_size, num_quantizers - 1, quantizer_dropout=quantizer_dropout, **options
        )

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all)."""
        number = self.check_number(num_codebooks)
        first = self.first.encode(z)
        return first if number == 1 else torch.cat([first, self.rest.encode(z, number - 1)], dim=-1)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., n]` of the first n codebooks to the sum of both parts, `[..., dim]`."""
        codes = self.check_codes(codes)
        first = self.first.codes_to_latent(codes[..., :1])
        return first if codes.shape[-1] == 1 else first + self.rest.codes_to_latent(codes[..., 1:])

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; codes `[..., n]` with dropout in training mode."""
        first, rest = self.first(z), self.rest(z)
        number = 1 + rest.codes.shape[-1]
        losses = {name: (loss + (number - 1) * rest.losses[name]) / number for name, loss in first.losses.items()}
        return QuantizerOutput(first.quantized + rest.quantized, torch.cat([first.codes, rest.codes], dim=-1), losses)

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Return the first codebook's part `[..., dim]`, with the gradient of `quantized`; InputError for another."""
        if codebook != 0:
            raise InputError(f"expected codebook 0, the one beside the residual ones, got {codebook}")
        return straight_through(quantized, self.codes_to_latent(codes[..., :1]).detach().to(quantized.dtype))
