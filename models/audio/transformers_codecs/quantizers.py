"""The quantizers of `transformers`' codecs, with the interface of ours."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, ResidualQuantizer, straight_through, without_autocast
from zoo.quantizers.residual import mean_losses
from zoo.quantizers.vector_quantize_pytorch import in_float32


class ResidualCodebooks(ResidualQuantizer):
    """Residual codebooks whose layers are those of `transformers`, in float32 whatever the data type.

    Args:
        dim: channels of the latent. size: number of rows of each codebook.
        layers: one module for each codebook.
    """

    def __init__(self, dim: int, size: int, layers: Iterable[nn.Module]):
        layers = nn.ModuleList(layers)
        super().__init__(dim, (size,) * len(layers))
        self.layers = layers

    @abstractmethod
    def step(self, layer: Any, residual: Tensor) -> QuantizerOutput:
        """Return what one layer makes of `[B, dim, positions]`: its vectors, codes `[B, positions]` and losses."""

    @abstractmethod
    def rows(self, layer: Any, codes: Tensor) -> Tensor:
        """Return the vectors `[B, dim, positions]` that codes `[B, positions]` of one layer stand for."""

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        with without_autocast(z):
            return self.codes_of(self.steps(z, self.check_number(num_codebooks)), z)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        codes = self.check_codes(codes)
        layers, rows = in_float32(self.layers), codes.reshape(codes.shape[0], -1, codes.shape[-1]).unbind(-1)
        vectors = (self.rows(layer, row) for layer, row in zip(layers, rows, strict=False))
        return reduce(torch.add, vectors).mT.reshape(*codes.shape[:-1], self.dim)

    def forward(self, z: Tensor) -> QuantizerOutput:
        with without_autocast(z):
            outputs = self.steps(z, self.num_codebooks)
            codes = self.codes_of(outputs, z)
            if self.training:
                quantized = reduce(torch.add, [output.quantized for output in outputs]).mT.reshape(z.shape)
                return QuantizerOutput(quantized.to(z.dtype), codes, mean_losses(outputs))
            return QuantizerOutput(straight_through(z.float(), self.codes_to_latent(codes)).to(z.dtype), codes, {})

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Return the vectors of the first codebook, with the gradient of `quantized`; InputError for another."""
        if codebook != 0:
            raise InputError(f"expected codebook 0, the first of residual codebooks, got {codebook}")
        return straight_through(quantized, self.codes_to_latent(codes[..., :1]).detach().to(quantized.dtype))

    def steps(self, z: Tensor, number: int) -> list[QuantizerOutput]:
        residual = self.check_latent(z).reshape(z.shape[0], -1, self.dim).mT
        outputs = []
        for layer in in_float32(self.layers)[:number]:
            outputs.append(self.step(layer, residual))
            residual = residual - outputs[-1].quantized.detach()
        return outputs

    def codes_of(self, outputs: list[QuantizerOutput], z: Tensor) -> Tensor:
        return torch.stack([output.codes for output in outputs], dim=-1).reshape(*z.shape[:-1], len(outputs))


class NearestCodebooks(ResidualCodebooks):
    """Codebooks searched by distance: those of EnCodec, X-Codec and Higgs Audio, which has projections around them."""

    def __init__(self, dim: int, size: int, layers: Iterable[nn.Module]):
        super().__init__(dim, size, layers)
        for layer in self.layers:
            codebook: Any = layer.codebook
            codebook.embed.normal_(std=0.1)  # transformers leaves them at 0, and then all codes would be 0

    def step(self, layer: Any, residual: Tensor) -> QuantizerOutput:
        codes = layer.encode(residual)
        found = layer.decode(codes)
        loss = F.mse_loss(residual, found.detach())
        return QuantizerOutput(straight_through(residual, found), codes, {"commitment_loss": loss})

    def rows(self, layer: Any, codes: Tensor) -> Tensor:
        return layer.decode(codes)


class ProjectedCodebooks(ResidualCodebooks):
    """Codebooks of few channels, searched by angle between projections: those of DAC."""

    def step(self, layer: Any, residual: Tensor) -> QuantizerOutput:
        quantized, commitment, codebook, codes, _ = layer(residual)
        return QuantizerOutput(quantized, codes, {"commitment_loss": commitment, "codebook_loss": codebook})

    def rows(self, layer: Any, codes: Tensor) -> Tensor:
        return layer.out_proj(layer.codebook(codes).mT)


class ScalarLevels(Quantizer):
    """One code for the rounded values of a few projected channels: that of XCodec2 and NeuCodec, in float32."""

    def __init__(self, dim: int, levels: Iterable[int], layer: nn.Module):
        super().__init__(dim, (math.prod(levels),))
        self.layer = layer

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with without_autocast(z):
            return in_float32(self.layer)(self.check_latent(z))[1].long()

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        return in_float32(self.layer).from_codes(self.check_codes(codes))

    def forward(self, z: Tensor) -> QuantizerOutput:
        with without_autocast(z):
            quantized, codes = in_float32(self.layer)(self.check_latent(z))
            codes = codes.long()
            return QuantizerOutput(straight_through(quantized, self.codes_to_latent(codes)).to(z.dtype), codes, {})
