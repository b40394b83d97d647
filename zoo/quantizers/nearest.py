"""Nearest codebook entry without the matrix of all distances."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.quantizers.base import without_autocast


def nearest_code(z: Tensor, codebook: Tensor, *, chunk: int = 1024) -> Tensor:
    """Index of the nearest codebook row (Euclidean) for every vector; the first one on a tie.

    Distances are |e|² - 2 z·e in float32: |z|² does not change the order. They exist for one tile of
    `chunk` vectors by `chunk` rows at a time, so memory does not grow with vectors × rows.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        chunk: side of a tile.

    Returns:
        int64 `[...]`.
    """
    with without_autocast(z), torch.no_grad():
        vectors = z.reshape(-1, z.shape[-1]).float()
        codebook = codebook.float()
        square_norms = codebook.square().sum(dim=1)
        nearest = torch.empty(len(vectors), dtype=torch.int64, device=z.device)
        for begin in range(0, len(vectors), chunk):
            some = vectors[begin : begin + chunk]
            best = torch.full((len(some),), torch.inf, device=z.device)
            index = torch.zeros(len(some), dtype=torch.int64, device=z.device)
            for row in range(0, len(codebook), chunk):
                rows = codebook[row : row + chunk]
                distance = torch.addmm(square_norms[row : row + chunk], some, rows.T, alpha=-2)
                least, where = distance.min(dim=1)
                closer = least < best
                best = torch.where(closer, least, best)
                index = torch.where(closer, where + row, index)
            nearest[begin : begin + chunk] = index
        return nearest.reshape(z.shape[:-1])
