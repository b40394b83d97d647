"""Additive vector quantization."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.tracing import values_are_readable


class AdditiveVQ(Quantizer):
    """Each vector becomes a sum of rows, one from each codebook, all of the vector's full length.

    Source: additive quantization (Babenko & Lempitsky, CVPR 2014), with its beam search: codebook by codebook,
    the `beam_width` best partial sums are kept. Width 1 is residual quantization. At width 8 the error of trained
    codebooks is about a third lower; improving the codes of width 1 afterwards does not reach that.

    Args:
        dim: length of a vector.
        codebook_sizes: number of rows of each codebook.
        beam_width: number of partial sums kept.

    Losses: `commitment_loss` = mean (z - sg(q))², `codebook_loss` = mean (sg(z) - q)²; the codebooks are
    parameters.
    """

    def __init__(self, dim: int, codebook_sizes: Sequence[int], *, beam_width: int = 8):
        if dim < 1 or not codebook_sizes or min(codebook_sizes) < 1:
            raise InputError(f"expected dim and codebook sizes >= 1, got {dim} and {list(codebook_sizes)}")
        if beam_width < 1:
            raise InputError(f"expected beam_width >= 1, got {beam_width}")
        super().__init__(dim, tuple(codebook_sizes))
        self.beam_width = beam_width
        self.codebooks = nn.ParameterList(
            nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size)) for size in codebook_sizes
        )

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]`."""
        with without_autocast(z):
            vectors = self.check_latent(z).reshape(-1, self.dim)
            if values_are_readable(vectors):
                chunk = max(1, 2**22 // (self.beam_width * max(self.codebook_sizes)))
                codes = torch.cat([self._search(some) for some in vectors.split(chunk)])
            else:  # a traced graph works for any number of vectors
                codes = self._search(vectors)
            return codes.reshape(*z.shape[:-1], self.num_codebooks)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_codebooks]` to the sum of their rows, `[..., dim]`."""
        return self._sum(self.check_codes(codes)).to(self.codebooks[0].dtype)

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Raise InputError: no codebook has a meaning without the others."""
        raise InputError("the codebooks of AdditiveVQ are summed in no order: none of them has vectors of its own")

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            codes = self.encode(latent)
            quantized = self._sum(codes)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(latent, quantized.detach())
                losses["codebook_loss"] = functional.mse_loss(quantized, latent.detach())
            quantized = straight_through(latent, quantized.detach())
            return QuantizerOutput(quantized.to(z.dtype), codes, losses)

    def _search(self, vectors: Tensor) -> Tensor:
        """Float32 `[vectors, dim]` to codes `[vectors, num_codebooks]`."""
        residual = vectors[:, None]  # [vectors, beam, dim]
        error = residual.square().sum(dim=-1)
        codes = torch.empty(vectors.shape[0], 1, 0, dtype=torch.int64, device=vectors.device)
        for codebook in self.codebooks:
            rows = codebook.float()
            errors = (error[..., None] + rows.square().sum(dim=-1) - 2 * residual @ rows.T).flatten(1)
            error, best = errors.topk(min(self.beam_width, errors.shape[1]), largest=False)
            beam, index = best // len(rows), best % len(rows)
            # (`take_along_dim` broadcasts, which would tie an exported graph to one number of vectors.)
            kept = [some.gather(1, beam[..., None].expand(-1, -1, some.shape[2])) for some in (residual, codes)]
            residual = kept[0] - rows[index]
            codes = torch.cat([kept[1], index[..., None]], dim=-1)
        return codes[:, 0]

    def _sum(self, codes: Tensor) -> Tensor:
        indices = codes.unbind(dim=-1)
        rows = [functional.embedding(*pair).float() for pair in zip(indices, self.codebooks, strict=True)]
        return reduce(torch.add, rows)
