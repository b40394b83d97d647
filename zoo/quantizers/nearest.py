"""Nearest codebook entry without the matrix of all distances."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.quantizers.base import without_autocast


def nearest_code(z: Tensor, codebook: Tensor, *, chunk: int | None = None) -> Tensor:
    """Index of the nearest codebook row (Euclidean) for every vector; the first one on a tie.

    Distances are |e|² - 2 z·e in float32: |z|² does not change the order. They exist for one tile of
    `chunk` × `chunk` numbers at a time, so memory does not grow with vectors × rows; and since a tile stays
    in the cache between its product and its minimum, all tiles take less time than the whole matrix.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        chunk: side of a tile (wider where there are fewer vectors); None: 1024 on a CPU (4 MiB), 4096
            elsewhere (64 MiB).

    Returns:
        int64 `[...]`.
    """
    if chunk is None:
        chunk = 1024 if z.device.type == "cpu" else 4096
    with without_autocast(z), torch.no_grad():
        vectors, codebook = z.reshape(-1, z.shape[-1]).float(), codebook.float()
        width = max(chunk, chunk**2 // max(len(vectors), 1))
        # Results go to memory taken beforehand: in the holes that tiles leave, they would keep the next tile out.
        square_norms = codebook.new_empty(len(codebook))
        for rows, target in zip(codebook.split(chunk), square_norms.split(chunk), strict=True):
            torch.sum(rows.square(), dim=1, out=target)
        buffer = vectors.new_empty(min(chunk, len(vectors)) * min(width, len(codebook)))
        tiles = list(zip(codebook.split(width), square_norms.split(width), strict=True))
        codes = torch.cat([nearest_in_tiles(some, tiles, buffer) for some in vectors.split(chunk)])
        return codes.reshape(z.shape[:-1])


def nearest_in_tiles(vectors: Tensor, tiles: list[tuple[Tensor, Tensor]], buffer: Tensor) -> Tensor:
    """`nearest_code` of `[vectors, dim]`; a tile is some rows and their squared norms."""
    offset = 0
    for rows, square_norms in tiles:
        distance = buffer[: len(vectors) * len(rows)].view(len(vectors), len(rows))
        torch.addmm(square_norms, vectors, rows.T, alpha=-2, out=distance)
        least, where = distance.min(dim=1)
        if offset == 0:
            best, index = least, where
        else:
            closer = least < best
            best = torch.where(closer, least, best)
            index = torch.where(closer, where + offset, index)
        offset += len(rows)
    return index
