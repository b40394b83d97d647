"""Multi-scale residual quantization: a latent as a pyramid of codes, coarse to fine (VAR, Infinity, TokenFlow)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    Scales,
    ScalesQuantizer,
    straight_through,
    without_autocast,
)
from zoo.quantizers.residual import mean_losses
from zoo.quantizers.vector import VectorQuantizer


class MultiScaleQuantizer(ScalesQuantizer):
    """Each scale codes what the coarser ones left of the latent, on a grid of its own.

    Sources: VAR (arXiv 2404.02905), Infinity (arXiv 2412.04431), TokenFlow (arXiv 2412.03069). For each scale, the
    residual is averaged over the cells of its grid (which overlap where the grid does not divide the latent's), `layer`
    quantizes the cells, and the vectors, enlarged to the latent's grid, are subtracted from the residual and added to
    the result. The first scales are a coarser code of the same latent, as large as the whole one.

    Args:
        layer: quantizer of the vectors of every scale.
        pyramids: as in `ScalesQuantizer`.
        enlargement: interpolation to the latent's grid, "bicubic" or "bilinear", without antialiasing.

    Losses: those of `layer`, averaged over the scales. The gradient of the result reaches the latent through every
    scale's straight-through estimate; what a scale leaves to the next carries none.
    """

    def __init__(
        self, layer: Quantizer, pyramids: Sequence[Scales], *, enlargement: Literal["bicubic", "bilinear"] = "bicubic"
    ):
        if enlargement not in ("bicubic", "bilinear"):
            raise InputError(f"expected enlargement 'bicubic' or 'bilinear', got {enlargement!r}")
        super().__init__(layer.dim, layer.codebook_sizes, pyramids)
        self.layer = layer
        self.enlargement = enlargement

    @torch.no_grad()
    def encode(self, z: Tensor, num_scales: int | None = None) -> Tensor:
        """Latents `[batch, height, width, dim]` to codes int64 `[batch, positions, num_codebooks]`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            scales = self.scales_of_latent(latent)
            residual, codes = latent.movedim(-1, 1), []
            for number, grid in enumerate(self.first(scales, num_scales)):
                codes.append(self.layer.encode(averaged(residual, grid)))
                residual = residual - self.enlarged(self._vectors(codes[-1]), number, scales)
            return torch.cat([part.flatten(1, 2) for part in codes], dim=1)

    def codes_to_latent(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes int64 `[batch, positions, num_codebooks]`, of all or the first scales, to latents."""
        codes = self.check_codes(codes)
        scales = self.scales_of(grid)
        with without_autocast(codes):
            total, *parts = self._parts(codes, scales)
            for part in parts:
                total = total + part
            return total.movedim(1, -1)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[batch, height, width, dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            scales, residual = self.scales_of_latent(latent), latent.movedim(-1, 1)
            outputs, total = [], torch.zeros_like(residual)
            for number, grid in enumerate(scales):
                outputs.append(self.layer(averaged(residual, grid)))
                part = self.enlarged(outputs[-1].quantized.movedim(-1, 1), number, scales)
                total = total + part
                residual = residual - part.detach()
            codes = torch.cat([output.codes.flatten(1, 2) for output in outputs], dim=1)
            return QuantizerOutput(total.movedim(1, -1).to(z.dtype), codes, mean_losses(outputs))

    def enlarged(self, vectors: Tensor, number: int, scales: Scales) -> Tensor:
        """Return what the vectors `[batch, dim, height, width]` of a scale, given by its number, add to the result."""
        if tuple(vectors.shape[2:]) == scales[-1]:
            return vectors
        return functional.interpolate(vectors, size=scales[-1], mode=self.enlargement, align_corners=False)

    def _vectors(self, codes: Tensor) -> Tensor:
        return self.layer.codes_to_latent(codes).float().movedim(-1, 1)

    def _parts(self, codes: Tensor, scales: Scales) -> list[Tensor]:
        """Return what each scale adds to the result, `[batch, dim, height, width]`."""
        return [
            self.enlarged(self._vectors(part), number, scales) for number, part in enumerate(self.split(codes, scales))
        ]


class MultiScaleVQ(MultiScaleQuantizer):
    """The quantizer of VAR: one codebook for all scales, whose enlarged rows pass a convolution.

    An enlarged row e becomes (1 - mix) e + mix phi(e), where phi is one of a few 3x3 convolutions that neighbouring
    scales share.

    Args:
        dim: length of a vector. codebook_size: number of rows.
        pyramids: as in `MultiScaleQuantizer`; all have as many scales as `phi_of_scale`.
        phi_of_scale: number of the convolution of each scale, from 0.
        mix: share of the convolution.

    Losses, with f the latent and F_s the result up to a scale s, averaged over the scales: `commitment_loss` =
    mean (f - sg(F_s))², `codebook_loss` = mean (sg(f) - F_s)². The codebook and the convolutions learn from the second.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        pyramids: Sequence[Scales],
        *,
        phi_of_scale: tuple[int, ...],
        mix: float = 0.5,
    ):
        super().__init__(VectorQuantizer(dim, codebook_size), pyramids)
        if any(len(scales) != len(phi_of_scale) for scales in pyramids):
            raise InputError(f"expected a number of phi_of_scale for each scale, got {phi_of_scale}")
        self.phi_of_scale, self.mix = phi_of_scale, mix
        self.phi = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(1 + max(phi_of_scale)))

    def enlarged(self, vectors: Tensor, number: int, scales: Scales) -> Tensor:
        """As in `MultiScaleQuantizer`; also the last scale passes its convolution."""
        vectors = super().enlarged(vectors, number, scales)
        phi = self.phi[self.phi_of_scale[number]]
        assert isinstance(phi, nn.Conv2d) and phi.bias is not None
        mixed = functional.conv2d(vectors, phi.weight.float(), phi.bias.float(), padding=1)
        return (1 - self.mix) * vectors + self.mix * mixed

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[batch, height, width, dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            scales = self.scales_of_latent(latent)
            codes = self.encode(z)
            sums = list(accumulate(self._parts(codes, scales)))
            quantized = sums[-1].movedim(1, -1)
            losses = {}
            if self.training:
                target = latent.movedim(-1, 1)
                commitment = [functional.mse_loss(target, total.detach()) for total in sums]
                codebook = [functional.mse_loss(total, target.detach()) for total in sums]
                losses["commitment_loss"] = torch.stack(commitment).mean()
                losses["codebook_loss"] = torch.stack(codebook).mean()
            return QuantizerOutput(straight_through(latent, quantized.detach()).to(z.dtype), codes, losses)


def averaged(latent: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the means of a latent `[batch, dim, height, width]` over the cells of a grid, `[batch, *grid, dim]`."""
    if tuple(latent.shape[2:]) != grid:
        latent = functional.adaptive_avg_pool2d(latent, grid)
    return latent.movedim(1, -1)
