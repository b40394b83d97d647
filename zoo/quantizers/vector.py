"""Vector quantization with one learned codebook."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.inference import kept
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.nearest import nearest_code, squared_norms


class VectorQuantizer(Quantizer):
    """Each vector becomes its nearest codebook row.

    Sources: VQ-VAE (van den Oord 2017, arXiv 1711.00937; EMA update in its appendix A.1), l2-normalised
    codebooks (Yu 2022, arXiv 2110.04627), k-means start and revival of unused codes (Zeghidour 2021,
    arXiv 2107.03312).

    With `distance="cosine"`, latents and codebook rows are divided by their norms: the nearest row is the one with
    the largest cosine, losses are taken between unit vectors, and unit rows are returned. The stored rows start at
    unit length; training may change their length.

    With `update="ema"`, the codebook is the ratio of two running averages, the sum and the number of the latents
    that chose a row; `forward` in training mode moves it after quantizing with the old one. Where
    `torch.distributed` is initialised, statistics are summed over all ranks and random choices are those of rank 0,
    so that every rank keeps the same codebook.

    Args:
        dim: length of a vector.
        codebook_size: number of rows.
        distance: "euclidean" or "cosine".
        update: "gradient" (the codebook is a parameter, moved by `codebook_loss`) or "ema" (a buffer).
        decay: decay of the running averages.
        epsilon: Laplace smoothing of the row counts. When the count of a row that is never chosen comes near this
            value (after some thousand steps), the row shrinks to the origin; `revive_below` prevents that.
        kmeans_init: whether the first training batch sets the codebook by k-means; needs `update="ema"`.
        kmeans_iters: rounds of that k-means.
        revive_below: a row whose running count falls below this is set to a random latent of the batch, with a
            count of twice the threshold, so that it has time to win latents; needs `update="ema"`.

    Losses: `commitment_loss` = mean (z - sg(q))²; with `update="gradient"` also `codebook_loss` = mean
    (sg(z) - q)².
    """

    codebook: Tensor
    cluster_size: Tensor
    codebook_sum: Tensor
    initialized: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        update: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        revive_below: float = 0.0,
    ):
        super().__init__(dim, (codebook_size,))
        if dim < 1 or codebook_size < 1:
            raise InputError(f"expected dim and codebook_size of at least 1, got {dim} and {codebook_size}")
        if distance not in ("euclidean", "cosine"):
            raise InputError(f"expected distance 'euclidean' or 'cosine', got {distance!r}")
        if update not in ("gradient", "ema"):
            raise InputError(f"expected update 'gradient' or 'ema', got {update!r}")
        if not 0 <= decay < 1:
            raise InputError(f"expected decay in [0, 1), got {decay}")
        if update == "gradient" and (kmeans_init or revive_below):
            raise InputError("kmeans_init and revive_below need update='ema', got update='gradient'")
        self.codebook_size = codebook_size
        self.distance = distance
        self.update = update
        self.decay = decay
        self.epsilon = epsilon
        self.kmeans_iters = kmeans_iters
        self.revive_below = revive_below
        codebook = self.normalise(torch.empty(codebook_size, dim).uniform_(-1 / codebook_size, 1 / codebook_size))
        if update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("cluster_size", torch.ones(codebook_size))
            self.register_buffer("codebook_sum", codebook.clone())
            self.register_buffer("initialized", torch.tensor(not kmeans_init))

    def rows(self) -> Tensor:
        """Return the codebook as it is compared: float32 `[codebook_size, dim]`, unit rows for cosine."""
        return self.normalise(self.codebook.float())

    def lookup(self, index: Tensor) -> Tensor:
        """Return the `rows` `[..., dim]` of valid indices int64 `[...]`, differentiable."""
        return self.normalise(functional.embedding(index, self.codebook).float())

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        rows = self.rows()
        norms = kept(self, lambda codebook: squared_norms(rows), self.codebook)
        return nearest_code(self.normalise(self.check_latent(z)), rows, norms=norms)[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to codebook rows `[..., dim]` in the codebook's dtype."""
        return self.lookup(self.check_codes(codes)[..., 0]).to(self.codebook.dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; in training mode moves an EMA codebook."""
        with without_autocast(z):
            latent = self.normalise(self.check_latent(z))
            if self.training and self.update == "ema" and not self.initialized:
                self._initialise_by_kmeans(latent.detach().reshape(-1, self.dim))
            codes = nearest_code(latent, self.rows())
            quantized = self.lookup(codes)
            losses = {}
            if self.training:
                losses["commitment_loss"] = functional.mse_loss(latent, quantized.detach())
                if self.update == "gradient":
                    losses["codebook_loss"] = functional.mse_loss(quantized, latent.detach())
                else:
                    self._update_codebook(latent.detach().reshape(-1, self.dim), codes.reshape(-1))
            quantized = straight_through(latent, quantized.detach())
            return QuantizerOutput(quantized.to(z.dtype), codes[..., None], losses)

    def normalise(self, vectors: Tensor) -> Tensor:
        """Return vectors `[..., dim]` as they are compared: of unit length for cosine, otherwise unchanged."""
        return functional.normalize(vectors, dim=-1) if self.distance == "cosine" else vectors

    @torch.no_grad()
    def _initialise_by_kmeans(self, vectors: Tensor) -> None:
        centres = random_rows(vectors, self.codebook_size)
        counts = vectors.new_ones(self.codebook_size)
        for _ in range(self.kmeans_iters):
            codes = nearest_code(vectors, self.normalise(centres))
            counts, sums = assignment_statistics(vectors, codes, self.codebook_size)
            centres = torch.where(counts[:, None] > 0, sums / counts[:, None], centres)
        self.cluster_size.copy_(counts.clamp(min=1))
        self.codebook_sum.copy_(centres * self.cluster_size[:, None])
        self.codebook.copy_(centres)
        self.initialized.fill_(True)

    @torch.no_grad()
    def _update_codebook(self, vectors: Tensor, codes: Tensor) -> None:
        counts, sums = assignment_statistics(vectors, codes, self.codebook_size)
        self.cluster_size.lerp_(counts.to(self.cluster_size.dtype), 1 - self.decay)
        self.codebook_sum.lerp_(sums.to(self.codebook_sum.dtype), 1 - self.decay)
        if self.revive_below:
            self._revive_dead_rows(vectors)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + self.codebook_size * self.epsilon) * total
        self.codebook.copy_(self.codebook_sum / smoothed[:, None])

    def _revive_dead_rows(self, vectors: Tensor) -> None:
        dead = self.cluster_size < self.revive_below
        if dead.any():
            # Set sum and count, not the row: rows are their ratio, so a new row would be overwritten at once.
            count = 2 * self.revive_below
            chosen = random_rows(vectors, int(dead.sum()))
            self.cluster_size[dead] = count
            self.codebook_sum[dead] = count * chosen.to(self.codebook_sum.dtype)


def vector_quantizers(layers: nn.ModuleList) -> list[VectorQuantizer]:
    """Return the modules of `layers`, all vector quantizers, with their type."""
    return [layer for layer in layers if isinstance(layer, VectorQuantizer)]


def assignment_statistics(vectors: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return the number and the sum of the vectors of each code, over all ranks.

    Args:
        vectors: float32 `[vectors, dim]`.
        codes: int64 `[vectors]`.

    Returns:
        counts float32 `[codebook_size]` and sums float32 `[codebook_size, dim]`.
    """
    counts = torch.bincount(codes, minlength=codebook_size).to(vectors.dtype)
    sums = vectors.new_zeros(codebook_size, vectors.shape[1]).index_add_(0, codes, vectors)
    if is_distributed():
        distributed.all_reduce(counts)
        distributed.all_reduce(sums)
    return counts, sums


def random_rows(vectors: Tensor, number: int) -> Tensor:
    """Return `number` random rows of `[vectors, dim]`, the same on all ranks; rows repeat only if there are fewer."""
    if len(vectors) >= number:
        index = torch.randperm(len(vectors), device=vectors.device)[:number]
    else:
        index = torch.randint(len(vectors), (number,), device=vectors.device)
    rows = vectors[index]
    if is_distributed():
        distributed.broadcast(rows, src=0)
    return rows


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return distributed.is_available() and distributed.is_initialized()
