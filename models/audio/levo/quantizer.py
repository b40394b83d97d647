"""The quantizer of LeVo's codec: a large codebook for each track, in a projected space."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.weight_norm import WeightNormLinear
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.nearest import nearest_code
from zoo.quantizers.residual import mean_losses


class Codebook(nn.Module):
    """One track's codebook, compared by cosine in a space of a few channels; the rows are used as they are stored."""

    def __init__(self, width: int, dim: int, size: int):
        super().__init__()
        self.project_in = WeightNormLinear(width, dim)
        self.project_out = WeightNormLinear(dim, width)
        self.rows = nn.Parameter(torch.randn(size, dim))

    def project(self, z: Tensor) -> Tensor:
        """Return features `[..., width]` in the space of the rows, float32 `[..., dim]`."""
        return self.project_in(z.to(self.rows.dtype)).float()

    def encode(self, z: Tensor) -> Tensor:
        """Return codes int64 `[..., 1]` of features `[..., width]`."""
        rows = F.normalize(self.rows.float(), dim=-1)
        return nearest_code(F.normalize(self.project(z), dim=-1), rows)[..., None]

    def decode(self, codes: Tensor) -> Tensor:
        """Return `[..., width]` for codes `[..., 1]`."""
        return self.project_out(F.embedding(codes[..., 0], self.rows))

    def forward(self, z: Tensor) -> QuantizerOutput:
        codes, projected = self.encode(z), self.project(z)
        rows = F.embedding(codes[..., 0], self.rows).float()
        losses = {}
        if self.training:
            losses["commitment_loss"] = F.mse_loss(projected, rows.detach())
            losses["codebook_loss"] = F.mse_loss(rows, projected.detach())
        quantized = self.project_out(straight_through(projected, rows.detach()).to(self.rows.dtype))
        return QuantizerOutput(quantized, codes, losses)


class TrackQuantizer(Quantizer):
    """Features of several tracks side by side, each with a codebook of its own in a projected space.

    Args:
        width: channels of a track's features.
        dim: channels of a codebook row.
        codebook_sizes: number of rows of each track's codebook.

    Losses, in the projected space and averaged over tracks: `commitment_loss` and `codebook_loss`, mean squared
    distances of projected features and rows.
    """

    def __init__(self, width: int, dim: int, codebook_sizes: tuple[int, ...]):
        super().__init__(width * len(codebook_sizes), codebook_sizes)
        self.tracks = nn.ModuleList(Codebook(width, dim, size) for size in codebook_sizes)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        return torch.cat([track.encode(part) for track, part in self.parts(z)], dim=-1)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        indices = self.check_codes(codes).split(1, dim=-1)
        return torch.cat([track.decode(index) for track, index in zip(self.codebooks(), indices, strict=True)], dim=-1)

    def forward(self, z: Tensor) -> QuantizerOutput:
        with without_autocast(z):
            outputs = [track(part) for track, part in self.parts(z)]
            return QuantizerOutput(
                torch.cat([output.quantized for output in outputs], dim=-1).to(z.dtype),
                torch.cat([output.codes for output in outputs], dim=-1),
                mean_losses(outputs),
            )

    def codebooks(self) -> list[Codebook]:
        return [track for track in self.tracks if isinstance(track, Codebook)]

    def parts(self, z: Tensor) -> Iterable[tuple[Codebook, Tensor]]:
        return zip(self.codebooks(), self.check_latent(z).chunk(self.num_codebooks, dim=-1), strict=True)
