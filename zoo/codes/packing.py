"""Codes packed into the fewest bits that are possible without a model of them, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from torch import Tensor

from zoo.codes.checks import check_codes, check_sizes, count_positions
from zoo.errors import InputError


def packed_size(codebook_sizes: Sequence[int], shape: Sequence[int]) -> int:
    """Return the number of bytes that `pack` makes of codes of `shape` `[batch, num_codebooks, *grid]`."""
    sizes = check_sizes(codebook_sizes)
    positions = count_positions(sizes, shape)
    if bits := _bits(sizes):
        return -(-positions * sum(bits) // 8)
    block = _block_positions(sizes)
    whole, rest = divmod(positions, block)
    return whole * _block_bytes(sizes, block) + _block_bytes(sizes, rest)


def pack(codes: Tensor, codebook_sizes: Sequence[int]) -> bytes:
    """Return codes as the fewest bytes that are possible without a model of them.

    The bytes have no header: reading them needs the codebook sizes and the shape. The codes are in the order of
    `flatten`, item by item.

    If every size is a power of two, each code is a field of log2(size) bits, highest bit first; the fields follow
    one another without gaps, the first in the highest bits of the first byte, and zero bits fill the last byte.

    Otherwise the positions are cut into blocks of P, the last one shorter, and each block is one big-endian integer:
    `value = 0`, then `value = value * size + code` for the block's codes in order. It has the least number of
    bytes that hold `R ** positions - 1`, where R is the product of all sizes. P is the least number whose R ** P
    fills its b bytes to within b // 128 bits: `R ** P >= 2 ** (8 * b - b // 128)`. Rounding to whole bytes thus
    costs under 0.1 %, and in the last block under a byte.

    Args:
        codes: integers `[batch, num_codebooks, *grid]`.
        codebook_sizes: number of entries of each codebook.

    Returns:
        `packed_size(codebook_sizes, codes.shape)` bytes.

    Raises:
        InputError: a wrong shape, dtype or range of the codes.
    """
    sizes = check_sizes(codebook_sizes)
    codes = check_codes(codes, sizes).cpu()
    symbols = codes.flatten(2).transpose(1, 2).flatten(0, 1).numpy()  # [positions, num_codebooks]
    if bits := _bits(sizes):
        return b"".join(_to_fields(span, bits) for span in _spans(symbols))
    return b"".join(_to_integers(blocks, sizes) for blocks in _blocks(symbols, _block_positions(sizes)))


def unpack(data: bytes, codebook_sizes: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return bytes that `pack` returned as int64 codes of `shape` `[batch, num_codebooks, *grid]`.

    Raises:
        InputError: a number of bytes that is not `packed_size`, or bytes that `pack` never returns.
    """
    sizes = check_sizes(codebook_sizes)
    positions = count_positions(sizes, shape)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"expected bytes, got {type(data).__name__}")
    if len(data) != packed_size(sizes, shape):
        raise InputError(
            f"expected {packed_size(sizes, shape)} bytes for codes {list(shape)} of sizes {sizes}, got {len(data)}"
        )
    symbols = np.empty((positions, len(sizes)), np.int64)
    stream = np.frombuffer(data, np.uint8)
    if bits := _bits(sizes):
        for span in _spans(symbols):
            num_bytes = -(-len(span) * sum(bits) // 8)
            _from_fields(stream[:num_bytes], bits, span)
            stream = stream[num_bytes:]
    else:
        for blocks in _blocks(symbols, _block_positions(sizes)):
            num_bytes = len(blocks) * _block_bytes(sizes, blocks.shape[1] // len(sizes))
            _from_integers(stream[:num_bytes], sizes, blocks)
            stream = stream[num_bytes:]
    batch, _, *grid = shape
    return torch.from_numpy(symbols).unflatten(0, (batch, -1)).transpose(1, 2).unflatten(2, grid)


def _bits(sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the bits of each codebook's field; None unless every size is a power of two."""
    if any(size & (size - 1) for size in sizes):
        return None
    return tuple(size.bit_length() - 1 for size in sizes)


def _spans(symbols: np.ndarray) -> Iterator[np.ndarray]:
    """Yield parts of `[positions, num_codebooks]` whose fields begin at whole bytes and fit the processor's cache."""
    step = max(8, 2**17 // symbols.shape[1] // 8 * 8)
    for start in range(0, len(symbols), step):
        yield symbols[start : start + step]


def _field_type(bits: tuple[int, ...]) -> np.dtype:
    """Return the narrowest big-endian unsigned integer type with room for every field."""
    return np.min_scalar_type(2 ** max(bits) - 1).newbyteorder(">")


def _to_fields(span: np.ndarray, bits: tuple[int, ...]) -> bytes:
    words = span.astype(_field_type(bits), order="C")
    word_bits = np.unpackbits(words.view(np.uint8).reshape(-1)).reshape(*span.shape, -1)
    fields = [word_bits[:, k, word_bits.shape[2] - width :] for k, width in enumerate(bits)]
    return np.packbits(np.concatenate(fields, axis=1)).tobytes()


def _from_fields(stream: np.ndarray, bits: tuple[int, ...], span: np.ndarray) -> None:
    """Fill `span` with the codes in `stream`."""
    stream_bits = np.unpackbits(stream)
    used = len(span) * sum(bits)
    if stream_bits[used:].any():
        raise InputError("expected zero bits after the last code, got others: these bytes are not pack()'s")
    fields = np.split(stream_bits[:used].reshape(len(span), -1), np.cumsum(bits[:-1]), axis=1)
    word_type = _field_type(bits)
    word_bits = np.zeros((*span.shape, 8 * word_type.itemsize), np.uint8)
    for k, width in enumerate(bits):
        word_bits[:, k, word_bits.shape[2] - width :] = fields[k]
    span[:] = np.packbits(word_bits.reshape(-1)).view(word_type).reshape(span.shape)


@lru_cache(maxsize=64)
def _block_positions(sizes: tuple[int, ...]) -> int:
    radix = math.prod(sizes)
    for positions in count(1):  # ends: the longer the block, the less rounding costs
        num_bytes = _block_bytes(sizes, positions)
        if radix**positions >= 2 ** (8 * num_bytes - num_bytes // 128):
            break
    return positions


def _block_bytes(sizes: tuple[int, ...], positions: int) -> int:
    return -(-(math.prod(sizes) ** positions - 1).bit_length() // 8)


def _blocks(symbols: np.ndarray, block_positions: int) -> Iterator[np.ndarray]:
    """Yield views `[blocks, codes of a block]` of `[positions, num_codebooks]`, several equal blocks at a time."""
    whole = len(symbols) - len(symbols) % block_positions
    step = 512 * block_positions
    for start in range(0, whole, step):
        blocks = symbols[start : min(start + step, whole)]
        yield blocks.reshape(len(blocks) // block_positions, -1)
    if whole < len(symbols):
        yield symbols[whole:].reshape(1, -1)


@lru_cache(maxsize=4)
def _radix_tree(sizes: tuple[int, ...], positions: int) -> tuple[list[list[int]], int]:
    """Return the radices of a block's codes, then of pairs of them, of pairs of pairs, ...; and that of the whole.

    A level of odd length has a 1 in front.
    """
    levels = []
    radices = list(sizes) * positions
    while len(radices) > 1:
        radices = [1] * (len(radices) % 2) + radices
        levels.append(radices)
        radices = [left * right for left, right in zip(radices[::2], radices[1::2], strict=True)]
    return levels, radices[0]


def _number_type(radices: list[int]) -> type:
    """Return a type that holds a pair of digits with these radices: a machine word if possible, or Python integers."""
    largest = max(left * right for left, right in zip(radices[::2], radices[1::2], strict=True))
    return np.uint64 if largest <= 2**64 else object


def _to_integers(blocks: np.ndarray, sizes: tuple[int, ...]) -> bytes:
    positions = blocks.shape[1] // len(sizes)
    levels, _ = _radix_tree(sizes, positions)
    values = blocks.astype(np.uint64)
    for radices in levels:
        if values.shape[1] < len(radices):
            values = np.concatenate([np.zeros((len(values), 1), values.dtype), values], axis=1)
        number = _number_type(radices)
        values = values.astype(number, copy=False)
        values = values[:, ::2] * np.array(radices[1::2], number) + values[:, 1::2]
    num_bytes = _block_bytes(sizes, positions)
    return b"".join(value.to_bytes(num_bytes, "big") for value in values[:, 0].tolist())


def _from_integers(stream: np.ndarray, sizes: tuple[int, ...], blocks: np.ndarray) -> None:
    """Fill `blocks` with the codes in `stream`."""
    levels, radix = _radix_tree(sizes, blocks.shape[1] // len(sizes))
    integers = [int.from_bytes(row.tobytes(), "big") for row in stream.reshape(len(blocks), -1)]
    if max(integers) >= radix:
        raise InputError("expected blocks below their radix, got a greater one: these bytes are not pack()'s")
    values = np.array(integers, object)[:, None]
    for i in reversed(range(len(levels))):
        number = _number_type(levels[i])
        values = values.astype(number, copy=False)
        right: np.ndarray = np.array(levels[i][1::2], number)
        digits: np.ndarray = np.empty((len(values), len(levels[i])), number)
        digits[:, ::2] = values // right
        digits[:, 1::2] = values - digits[:, ::2] * right
        values = digits[:, -(len(levels[i - 1]) // 2 if i else blocks.shape[1]) :]
    blocks[:] = values
