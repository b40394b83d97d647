"""Nearest codebook entry without the matrix of all distances."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.quantizers.base import without_autocast


def nearest_code(z: Tensor, codebook: Tensor, *, chunk: int | None = None) -> Tensor:
    """Index of the nearest codebook row (Euclidean) for every vector; the first one on a tie.

    Distances are |e|² - 2 z·e in float32: |z|² does not change the order. They exist for one tile of
    `chunk` vectors by `chunk` rows at a time, so memory does not grow with vectors × rows; and since a tile
    stays in the cache between its product and its minimum, the tiles also take less time than the matrix.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        chunk: side of a tile; None: 1024 on a CPU (4 MiB), 4096 elsewhere (64 MiB).

    Returns:
        int64 `[...]`.
    """
    if chunk is None:
        chunk = 1024 if z.device.type == "cpu" else 4096
    with without_autocast(z), torch.no_grad():
        codebook = codebook.float()
        square_norms = codebook.square().sum(dim=1)
        tiles = list(zip(codebook.split(chunk), square_norms.split(chunk), strict=True))
        vectors = z.reshape(-1, z.shape[-1]).float()
        nearest = torch.zeros(len(vectors), dtype=torch.int64, device=z.device)
        for some, index in zip(vectors.split(chunk), nearest.split(chunk), strict=True):
            best = torch.full((len(some),), torch.inf, device=z.device)
            for number, (rows, norms) in enumerate(tiles):
                least, where = torch.addmm(norms, some, rows.T, alpha=-2).min(dim=1)
                closer = least < best
                best = torch.where(closer, least, best)
                index.copy_(torch.where(closer, where + number * chunk, index))
        return nearest.reshape(z.shape[:-1])
