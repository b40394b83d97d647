"""Nearest or most similar codebook row of each vector, without the matrix of all distances or products."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.quantizers.base import without_autocast
from zoo.tracing import values_are_readable

TRACED_ROWS = 16384  # codebook rows of a tile in a traced graph


def nearest_code(z: Tensor, codebook: Tensor, *, norms: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Return the index of the nearest codebook row (Euclidean) for every vector; the first one on a tie.

    Distances are |e|² - 2 z·e in float32: |z|² does not change the order. They exist for one tile of
    `chunk` × `chunk` numbers at a time, so memory does not grow with vectors × rows; and since a tile stays
    in the cache between its product and its minimum, all tiles take less time than the whole matrix.
    In a traced graph (`torch.compile`, `torch.export`) a tile is all vectors by 16,384 rows, so that the graph
    works for any number of vectors.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        norms: `squared_norms(codebook)`, where the caller has them; None: they are computed.
        chunk: side of a tile (wider where there are fewer vectors); None: 1024 on a CPU (4 MiB), 4096
            elsewhere (64 MiB).

    Returns:
        int64 `[...]`.
    """
    return search(z, codebook, squared_norms(codebook) if norms is None else norms, chunk)


@torch.no_grad()
def squared_norms(codebook: Tensor) -> Tensor:
    """Return the squared norm of each row of `[codebook_size, dim]`, float32, without a copy of the codebook."""
    if not values_are_readable(codebook):
        return codebook.float().square().sum(dim=1)
    return torch.cat([rows.float().square().sum(dim=1) for rows in codebook.split(1024)])


def most_similar_code(z: Tensor, rows: Tensor, bias: Tensor | None = None, *, chunk: int | None = None) -> Tensor:
    """Return the index of the row with the largest inner product for every vector; the first one on a tie.

    Args:
        z: floating `[..., dim]`.
        rows: floating `[codes, dim]`.
        bias: floating `[codes]`, added to the products; None: nothing is.
        chunk: as in `nearest_code`, whose memory and time this has.

    Returns:
        int64 `[...]`.
    """
    offsets = rows.new_zeros(len(rows), dtype=torch.float32) if bias is None else -2 * bias.detach().float()
    return search(z, rows, offsets, chunk)


def search(z: Tensor, codebook: Tensor, offsets: Tensor, chunk: int | None) -> Tensor:
    """Return the index of the row of least `offset - 2 z·row`."""
    if chunk is None:
        chunk = 1024 if z.device.type == "cpu" else 4096
    with without_autocast(z), torch.no_grad():
        vectors, codebook = z.reshape(-1, z.shape[-1]).float(), codebook.float()
        if not values_are_readable(vectors):
            tiles = list(zip(codebook.split(TRACED_ROWS), offsets.split(TRACED_ROWS), strict=True))
            return nearest_in_tiles(vectors, tiles).reshape(z.shape[:-1])
        width = max(chunk, chunk**2 // max(len(vectors), 1))
        # Results go to memory allocated beforehand. Otherwise they would take gaps that tiles leave, and the next tile
        # would not fit there.
        buffer = vectors.new_empty(min(chunk, len(vectors)) * min(width, len(codebook)))
        tiles = list(zip(codebook.split(width), offsets.split(width), strict=True))
        codes = torch.cat([nearest_in_tiles(some, tiles, buffer) for some in vectors.split(chunk)])
        return codes.reshape(z.shape[:-1])


def nearest_in_tiles(vectors: Tensor, tiles: list[tuple[Tensor, Tensor]], buffer: Tensor | None = None) -> Tensor:
    """Return `search` of `[vectors, dim]`; a tile is some rows and their offsets.

    The values of each tile are written to `buffer`; None: to memory of their own.
    """
    least = index = None
    first = 0
    for rows, offsets in tiles:
        target = None if buffer is None else buffer[: len(vectors) * len(rows)].view(len(vectors), len(rows))
        distance = torch.addmm(offsets, vectors, rows.T, alpha=-2, out=target)
        least_here, index_here = distance.min(dim=1)
        if least is None or index is None:
            least, index = least_here, index_here
        else:
            closer = least_here < least
            least = torch.where(closer, least_here, least)
            index = torch.where(closer, index_here + first, index)
        first += len(rows)
    assert index is not None, "a codebook has a row"
    return index
