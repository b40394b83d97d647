"""Checks that ids, packed bits and files of codes share."""

from __future__ import annotations

import math
import reprlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from zoo import modalities
from zoo.errors import InputError
from zoo.modalities.base import INTEGERS, special_kind
from zoo.tracing import values_are_readable

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec

LOWEST_FRAME_RATE, HIGHEST_FRAME_RATE = 1e-3, 1e5
MOST_ASPECT = 100.0  # of a pixel's sides


def check_sizes(codebook_sizes: Sequence[int]) -> tuple[int, ...]:
    if not are_counts(codebook_sizes) or not codebook_sizes:
        raise InputError(
            f"expected codebook_sizes as integers from 1 to below 2 ** 63, got {reprlib.repr(codebook_sizes)}"
        )
    return tuple(codebook_sizes)


def check_codes(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the codes as int64."""
    if not is_integer(codes):
        raise InputError(f"expected codes as an integer tensor, got {described(codes)}")
    if codes.ndim < 3 or codes.shape[1] != len(sizes) or codes.numel() == 0:
        raise InputError(f"expected codes as [batch, {len(sizes)}, *grid], got {list(codes.shape)}")
    codes = codes.to(torch.int64)
    for k, size in enumerate(sizes):
        least, greatest = (int(bound) for bound in codes[:, k].aminmax())
        if least < 0 or greatest >= size:
            raise InputError(f"expected codes of codebook {k} in [0, {size}), got {least} to {greatest}")
    return codes


def check_grid(grid: Sequence[int]) -> tuple[int, ...]:
    """Return the codes' axes after the codebooks; InputError unless they are positive integers."""
    if not are_counts(grid) or not grid:
        raise InputError(f"expected grid as positive integers, got {reprlib.repr(grid)}")
    return tuple(grid)


def check_size(size: Sequence[int], codes: Tensor) -> tuple[int, ...]:
    # A signal may have more axes than its codes: the tokens of a 1D tokenizer stand for an image.
    if not are_counts(size) or len(size) < codes.ndim - 2:
        raise InputError(f"expected size as positive integers, at least {codes.ndim - 2}, got {reprlib.repr(size)}")
    return tuple(size)


def check_lengths(lengths: Tensor, codes: Tensor) -> Tensor:
    """Return the lengths as int64."""
    if not is_integer(lengths) or lengths.shape != codes.shape[:1] or int(lengths.min()) < 1:
        came = reprlib.repr(lengths) if is_integer(lengths) else described(lengths)
        raise InputError(f"expected lengths as {len(codes)} positive integers, one per item, got {came}")
    return lengths.to(torch.int64)


def check_frame_rate(frame_rate: Any) -> float:
    is_number = isinstance(frame_rate, int | float) and not isinstance(frame_rate, bool)
    if not is_number or not LOWEST_FRAME_RATE <= frame_rate <= HIGHEST_FRAME_RATE:
        raise InputError(
            f"expected frame_rate as a number from {LOWEST_FRAME_RATE:g} to {HIGHEST_FRAME_RATE:g} frames a second, "
            f"got {reprlib.repr(frame_rate)}"
        )
    return float(frame_rate)


def check_pixel_aspect(pixel_aspect: Any) -> float:
    """Return width by height of a pixel; InputError for what is not a number from 0.01 to 100."""
    is_number = isinstance(pixel_aspect, int | float) and not isinstance(pixel_aspect, bool)
    if not is_number or not 1 / MOST_ASPECT <= pixel_aspect <= MOST_ASPECT:
        raise InputError(
            f"expected pixel_aspect as a number from {1 / MOST_ASPECT:g} to {MOST_ASPECT:g}, "
            f"got {reprlib.repr(pixel_aspect)}"
        )
    return float(pixel_aspect)


def check_against_spec(
    codes: Tensor, sizes: tuple[int, ...], size: tuple[int, ...] | None, lengths: Tensor | None, spec: TokenizerSpec
) -> None:
    """Raise InputError unless the variant of `spec` gives such codes for signals of `size` and `lengths`."""
    if sizes != (spec.codebook_sizes[: len(sizes)] if spec.residual else spec.codebook_sizes):
        first = ", or the first of them," if spec.residual else ""
        raise InputError(
            f"expected codebook_sizes {spec.codebook_sizes}{first} of {spec.name}, got {reprlib.repr(sizes)}"
        )
    grid = tuple(codes.shape[2:])
    if len(grid) != len(spec.grid_axes):
        raise InputError(
            f"expected codes of {spec.name} as [batch, {len(sizes)}, {', '.join(spec.grid_axes)}], "
            f"got {list(codes.shape)}"
        )
    if size is None:
        return
    axes = modalities.get(spec.modality).axes
    if len(size) != len(axes):
        raise InputError(f"expected a size of ({', '.join(axes)}), got {size}")
    if not spec.variable_size and size[-2:] not in spec.sizes:
        raise InputError(f"{spec.name} takes {spec.modality}s of {times(spec.sizes[0])}, got size {size}")
    expected = spec.grid(size)
    if spec.scales:
        spec.scales_of_codes(grid[0], size)
    elif grid != expected and not (spec.tail_drop and grid < expected):
        enough = f", enough for {times(largest_size(spec, grid))}" if spec.num_tokens is None else ""
        raise InputError(
            f"states a size of {times(size)} ({' x '.join(axes)}), for which {spec.name} gives {times(expected)} "
            f"codes, but holds {times(grid)}{enough}"
        )
    if lengths is not None and int(lengths.max()) > size[0]:
        raise InputError(f"expected lengths of at most {size[0]} {axes[0]}, got {int(lengths.max())}")


def check_layout(codes: Any, spec: TokenizerSpec) -> None:
    """Raise InputError unless codes are a tensor in the layout of `spec`; its type and values are not checked.

    The positions of a pyramid of scales are not checked either: only its size tells which they are.
    """
    most = spec.num_codebooks
    least = 1 if spec.residual else most
    layout = f"[batch, {'1 to ' if least < most else ''}{most}, {', '.join(spec.grid_axes)}]"
    if not isinstance(codes, Tensor):
        raise InputError(f"expected codes as an integer tensor {layout}, got {type(codes).__name__}")
    if kind := special_kind(codes):
        raise InputError(f"expected codes as an ordinary tensor {layout}, got a {kind} one")
    if codes.ndim != 2 + len(spec.grid_axes) or not least <= codes.shape[1] <= most:
        raise InputError(f"expected codes as {layout} (on the grid), got {list(codes.shape)}")
    if codes.numel() == 0:
        raise InputError(f"expected codes as {layout}, got an empty tensor {list(codes.shape)}")
    if values_are_readable(codes) and codes.shape[2] % spec.frame_multiple:
        raise InputError(
            f"{spec.name} decodes {spec.frame_multiple} frames together: expected a multiple of {spec.frame_multiple} "
            f"frames, got {codes.shape[2]}"
        )
    if spec.variable_size or spec.scales:
        return
    whole = spec.fixed_grid
    grid = tuple(codes.shape[-len(whole) :])
    if grid != whole and not (spec.tail_drop and grid[0] <= whole[0]):
        takes = f"1 to {whole[0]}" if spec.tail_drop else times(whole)
        noun = "frame" if len(whole) < len(spec.grid_axes) else modalities.get(spec.modality).noun[0]
        raise InputError(f"{spec.name} takes {takes} codes per {noun}, got {times(grid)}")


def largest_size(spec: TokenizerSpec, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The largest signal that codes on `grid` stand for."""
    first, *others = (length * step for length, step in zip(grid, spec.downsample, strict=True))
    return bisect_right(range(1, first + spec.feature_hop), grid[0], key=spec.code_length), *others


def times(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))


def count_positions(sizes: tuple[int, ...], shape: Sequence[int]) -> int:
    if not are_counts(shape) or len(shape) < 3 or shape[1] != len(sizes):
        raise InputError(f"expected shape as (batch, {len(sizes)}, *grid), got {reprlib.repr(shape)}")
    return math.prod(shape) // len(sizes)


def are_counts(values: Any) -> bool:
    """Whether `values` are positive integers that any tensor's axes could have."""
    return isinstance(values, Sequence) and all(
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63 for value in values
    )


def is_integer(value: object) -> TypeGuard[Tensor]:
    """Whether `value` is an ordinary tensor of integers that are all in memory."""
    return isinstance(value, Tensor) and value.dtype in INTEGERS and special_kind(value) is None and not value.is_meta


def described(value: object) -> str:
    """Return the type of a value, and of a tensor what tells it from others, for errors."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    kind = "meta" if value.is_meta else special_kind(value)
    return str(value.dtype) if kind is None else f"a {kind} one of {value.dtype}"
