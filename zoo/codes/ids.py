"""Codes as the ids of a language model's vocabulary, and back."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.codes.checks import check_codes, check_grid, check_sizes, described, is_integer
from zoo.errors import InputError


def vocabulary_size(codebook_sizes: Sequence[int]) -> int:
    """Return the number of ids that `flatten` uses: the entries of all codebooks together."""
    return sum(check_sizes(codebook_sizes))


def flatten(codes: Tensor, codebook_sizes: Sequence[int], *, offset: int = 0) -> Tensor:
    """Return codes as ids of one vocabulary, in which each codebook has a range of its own.

    Args:
        codes: integers `[batch, num_codebooks, *grid]`.
        codebook_sizes: number of entries of each codebook.
        offset: the first id; those of codebook k begin at `offset + sum(codebook_sizes[:k])`.

    Returns:
        int64 `[batch, positions * num_codebooks]`, the codebooks of a position side by side.

    Raises:
        InputError: a wrong shape, dtype or range of the codes.
    """
    sizes = check_sizes(codebook_sizes)
    symbols = check_codes(codes, sizes).flatten(2).transpose(1, 2)  # [batch, positions, num_codebooks]
    return (symbols + first_ids(sizes, offset).to(codes.device)).flatten(1)


def unflatten(ids: Tensor, codebook_sizes: Sequence[int], grid: Sequence[int], *, offset: int = 0) -> Tensor:
    """Return ids that `flatten` returned as codes.

    Args:
        ids: integers `[batch, positions * num_codebooks]`.
        codebook_sizes, offset: as in `flatten`.
        grid: the codes' axes after the codebooks, `(frames,)`, `(h, w)` or `(t, h, w)`.

    Returns:
        int64 `[batch, num_codebooks, *grid]`.

    Raises:
        InputError: a wrong shape or dtype of the ids, or an id outside its codebook's range.
    """
    sizes = check_sizes(codebook_sizes)
    if not is_integer(ids):
        raise InputError(f"expected ids as an integer tensor, got {described(ids)}")
    grid = check_grid(grid)
    length = math.prod(grid) * len(sizes)
    if ids.ndim != 2 or ids.shape[1] != length or ids.numel() == 0:
        raise InputError(
            f"expected ids as [batch, {length}] for {len(sizes)} codebooks on grid {tuple(grid)}, got {list(ids.shape)}"
        )
    first = first_ids(sizes, offset).to(ids.device)
    symbols = ids.to(torch.int64).unflatten(1, (-1, len(sizes)))
    wrong = (symbols < first) | (symbols - first >= torch.tensor(sizes, device=ids.device))
    if wrong.any():
        item, position, k = wrong.nonzero()[0].tolist()
        start = int(first[k])
        raise InputError(
            f"expected ids of codebook {k} in [{start}, {start + sizes[k]}), "
            f"got {int(symbols[item, position, k])} at item {item}, place {position * len(sizes) + k}"
        )
    return (symbols - first).transpose(1, 2).unflatten(2, tuple(grid))


def first_ids(sizes: tuple[int, ...], offset: int) -> Tensor:
    """Return the first id of each codebook, int64 `[num_codebooks]`; InputError for ids that are no int64 from 0."""
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise InputError(f"expected offset as an integer, got {reprlib.repr(offset)}")
    if offset < 0 or offset + sum(sizes) > 2**63:
        raise InputError(f"expected ids from 0 to 2 ** 63 - 1, got {sum(sizes)} of them from offset {offset}")
    return torch.tensor([offset, *sizes[:-1]]).cumsum(0)
