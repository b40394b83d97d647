"""Checks that ids, packed bits and files of codes share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import InputError

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_sizes(codebook_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(codebook_sizes)
    if not sizes or any(not isinstance(size, int) or not 1 <= size < 2**63 for size in sizes):
        raise InputError(f"expected codebook_sizes as integers from 1 to below 2 ** 63, got {sizes}")
    return sizes


def check_codes(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the codes as int64."""
    if not is_integer(codes):
        raise InputError(f"expected codes as an integer tensor, got {kind(codes)}")
    if codes.ndim < 3 or codes.shape[1] != len(sizes) or codes.numel() == 0:
        raise InputError(f"expected codes as [batch, {len(sizes)}, *grid], got {list(codes.shape)}")
    codes = codes.to(torch.int64)
    for k, size in enumerate(sizes):
        least, greatest = (int(bound) for bound in codes[:, k].aminmax())
        if least < 0 or greatest >= size:
            raise InputError(f"expected codes of codebook {k} in [0, {size}), got {least} to {greatest}")
    return codes


def check_size(size: Sequence[int], codes: Tensor) -> tuple[int, ...]:
    # A signal may have more axes than its codes: the tokens of a 1D tokenizer stand for an image.
    if len(size) < codes.ndim - 2 or any(not isinstance(length, int) or length < 1 for length in size):
        raise InputError(f"expected size as positive integers, at least {codes.ndim - 2}, got {tuple(size)}")
    return tuple(size)


def check_lengths(lengths: Tensor, codes: Tensor) -> Tensor:
    """Return the lengths as int64."""
    if not is_integer(lengths) or lengths.shape != codes.shape[:1] or int(lengths.min()) < 1:
        raise InputError(f"expected lengths as {len(codes)} positive integers, one per item, got {lengths}")
    return lengths.to(torch.int64)


def count_positions(sizes: tuple[int, ...], shape: Sequence[int]) -> int:
    if len(shape) < 3 or shape[1] != len(sizes) or min(shape) < 1:
        raise InputError(f"expected shape as (batch, {len(sizes)}, *grid), got {tuple(shape)}")
    return math.prod(shape) // len(sizes)


def is_integer(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in INTEGERS


def kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
