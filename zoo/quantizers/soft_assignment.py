"""The softmax of vectors over the rows of a codebook, tile by tile: sums over it, and gradients through it.

A tile is some vectors by some rows. Nothing of the size vectors × rows ever exists, and nothing of the size rows × dim
but the codebook and one gradient of it, into which all tiles add. What is computed in a tile is computed again in the
backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST = -70.0  # logarithms of smaller probabilities: their sums change nothing, and denormal numbers are slow
Values = Callable[[slice, slice, Tensor], Tensor]


def spans(vectors: Tensor, rows: Tensor) -> tuple[list[slice], list[slice]]:
    """Return the parts of vectors and of rows that make the tiles; where there are few vectors, a tile is wider."""
    side = 1024 if vectors.device.type == "cpu" else 4096
    width = max(side, side**2 // max(len(vectors), 1))

    def split(length: int, size: int) -> list[slice]:
        return [slice(start, min(start + size, length)) for start in range(0, length, size)]

    return split(len(vectors), side), split(len(rows), width)


def normalizers(vectors: Tensor, rows: Tensor) -> Tensor:
    """Return the logarithm of the sum over rows of exp(vector·row), `[vectors]`.

    Args:
        vectors, rows: float32 `[vectors, dim]` and `[rows, dim]`, also in the other functions.
    """
    found = vectors.new_full((len(vectors),), -torch.inf)
    some_vectors, some_rows = spans(vectors, rows)
    for v in some_vectors:
        for r in some_rows:
            found[v] = torch.logaddexp(found[v], (vectors[v] @ rows[r].T).logsumexp(dim=1))
    return found


def log_probabilities(vectors: Tensor, rows: Tensor, normalizer: Tensor) -> Tensor:
    """Return the logarithms of the softmax of one tile, at least `LEAST`."""
    return (vectors @ rows.T).sub_(normalizer[:, None]).clamp_(min=LEAST)


def sums(vectors: Tensor, rows: Tensor, normalizer: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums over vectors: of the entropy of their softmax, and of the softmax itself, `[rows]`."""
    entropy, probability = vectors.new_zeros(()), rows.new_zeros(len(rows))
    some_vectors, some_rows = spans(vectors, rows)
    for v in some_vectors:
        for r in some_rows:
            logarithm = log_probabilities(vectors[v], rows[r], normalizer[v])
            exponential = logarithm.exp()
            probability[r] += exponential.sum(dim=0)
            entropy -= logarithm.mul_(exponential).sum()
    return entropy, probability


def add_gradients(
    vectors: Tensor, rows: Tensor, normalizer: Tensor, values: Values, to_vectors: Tensor, to_rows: Tensor
) -> None:
    """Add the gradients of a loss whose derivative by each probability of the softmax is known.

    Args:
        normalizer: as `normalizers` returns it.
        values: returns that derivative for a tile, up to a constant for each vector, from the tile's part of the
            vectors, its part of the rows and the logarithms of its probabilities.
        to_vectors, to_rows: what the gradients are added to.
    """

    def tile(v: slice, r: slice) -> tuple[Tensor, Tensor]:
        logarithm = log_probabilities(vectors[v], rows[r], normalizer[v])
        value = values(v, r, logarithm)
        return logarithm.exp_(), value

    some_vectors, some_rows = spans(vectors, rows)
    for v in some_vectors:
        mean = vectors.new_zeros(v.stop - v.start)
        for r in some_rows:
            probability, value = tile(v, r)
            mean += value.mul_(probability).sum(dim=1)
        for r in some_rows:
            probability, value = tile(v, r)
            gradient = value.sub_(mean[:, None]).mul_(probability)
            to_vectors[v].addmm_(gradient, rows[r])
            to_rows[r].addmm_(gradient.T, vectors[v])
