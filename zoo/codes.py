"""Codes as language-model ids, as packed bits and as files.

Codes are int64 `[batch, num_codebooks, *grid]`; codebook k's lie in `[0, codebook_sizes[k])`. Ids and packed
bits have the same order: item by item, grid position by grid position (the last axis fastest), and at each
position codebook by codebook.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors import safe_open
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

FORMAT = "zoo-codes-1"
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# Language-model ids


def vocabulary_size(codebook_sizes: Sequence[int]) -> int:
    """How many ids `flatten` uses: the entries of all codebooks together."""
    return sum(_check_sizes(codebook_sizes))


def flatten(codes: Tensor, codebook_sizes: Sequence[int], *, offset: int = 0) -> Tensor:
    """Codes to ids of one vocabulary, in which each codebook has a range of its own.

    Args:
        codes: integers `[batch, num_codebooks, *grid]`.
        codebook_sizes: entries of each codebook.
        offset: the first id; codebook k's begin at `offset + sum(codebook_sizes[:k])`.

    Returns:
        int64 `[batch, positions * num_codebooks]`, the codebooks of a position side by side.

    Raises:
        InputError: shape, dtype or range of the codes.
    """
    sizes = _check_sizes(codebook_sizes)
    symbols = _check_codes(codes, sizes).flatten(2).transpose(1, 2)  # [batch, positions, num_codebooks]
    return (symbols + _first_ids(sizes, offset, codes.device)).flatten(1)


def unflatten(ids: Tensor, codebook_sizes: Sequence[int], grid: Sequence[int], *, offset: int = 0) -> Tensor:
    """What `flatten` gave, back to codes.

    Args:
        ids: integers `[batch, positions * num_codebooks]`.
        codebook_sizes, offset: as in `flatten`.
        grid: the codes' axes behind the codebooks, `(frames,)`, `(h, w)` or `(t, h, w)`.

    Returns:
        int64 `[batch, num_codebooks, *grid]`.

    Raises:
        InputError: shape or dtype of the ids, or an id that is none of its codebook's.
    """
    sizes = _check_sizes(codebook_sizes)
    if not _is_integer(ids):
        raise InputError(f"expected ids as an integer tensor, got {_kind(ids)}")
    length = math.prod(grid) * len(sizes)
    if ids.ndim != 2 or ids.shape[1] != length or ids.numel() == 0:
        raise InputError(
            f"expected ids as [batch, {length}] for {len(sizes)} codebooks on grid {tuple(grid)}, got {list(ids.shape)}"
        )
    first = _first_ids(sizes, offset, ids.device)
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


def _first_ids(sizes: tuple[int, ...], offset: int, device: torch.device) -> Tensor:
    if offset < 0 or offset + sum(sizes) > 2**63:
        raise InputError(f"expected ids from 0 to 2 ** 63 - 1, got {sum(sizes)} of them from offset {offset}")
    return torch.tensor([offset, *sizes[:-1]], device=device).cumsum(0)


# Packed bits


def packed_size(codebook_sizes: Sequence[int], shape: Sequence[int]) -> int:
    """Bytes that `pack` makes of codes of `shape` `[batch, num_codebooks, *grid]`."""
    sizes = _check_sizes(codebook_sizes)
    positions = _positions(sizes, shape)
    if bits := _bits(sizes):
        return -(-positions * sum(bits) // 8)
    block = _block_positions(sizes)
    whole, rest = divmod(positions, block)
    return whole * _block_bytes(sizes, block) + _block_bytes(sizes, rest)


def pack(codes: Tensor, codebook_sizes: Sequence[int]) -> bytes:
    """Codes to the fewest bytes that need no model of them.

    The stream is headerless: reading it takes the codebook sizes and the shape. The codes stand in the order
    of `flatten`, batch and all.

    If every size is a power of two, each code is a field of log2(size) bits, highest bit first; the fields follow
    one another without gaps, the first in the highest bits of the first byte, and zero bits fill the last byte.

    Otherwise the positions are cut into blocks of P, the last one shorter, and each block is one big-endian integer:
    `value = 0`, then `value = value * size + code` for the block's codes in order. It has the least number of
    bytes that hold `R ** positions - 1`, where R is the product of all sizes. P is the least number whose R ** P
    fills its b bytes to within b // 128 bits: `R ** P >= 2 ** (8 * b - b // 128)`. Rounding to whole bytes thus
    costs under 0.1 %, and in the last block under a byte.

    Args:
        codes: integers `[batch, num_codebooks, *grid]`.
        codebook_sizes: entries of each codebook.

    Returns:
        `packed_size(codebook_sizes, codes.shape)` bytes.

    Raises:
        InputError: shape, dtype or range of the codes.
    """
    sizes = _check_sizes(codebook_sizes)
    codes = _check_codes(codes, sizes).cpu()
    symbols = codes.flatten(2).transpose(1, 2).flatten(0, 1).numpy()  # [positions, num_codebooks]
    if bits := _bits(sizes):
        return b"".join(_to_fields(span, bits) for span in _spans(symbols))
    return b"".join(_to_integers(blocks, sizes) for blocks in _blocks(symbols, _block_positions(sizes)))


def unpack(data: bytes, codebook_sizes: Sequence[int], shape: Sequence[int]) -> Tensor:
    """What `pack` gave, back to int64 codes of `shape` `[batch, num_codebooks, *grid]`.

    Raises:
        InputError: a number of bytes that is not `packed_size`, or bytes that `pack` does not make.
    """
    sizes = _check_sizes(codebook_sizes)
    symbols = np.empty((_positions(sizes, shape), len(sizes)), np.int64)
    if len(data) != packed_size(sizes, shape):
        raise InputError(
            f"expected {packed_size(sizes, shape)} bytes for codes {list(shape)} of sizes {sizes}, got {len(data)}"
        )
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
    """Bits of each codebook's field, where every size is a power of two."""
    if any(size & (size - 1) for size in sizes):
        return None
    return tuple(size.bit_length() - 1 for size in sizes)


def _spans(symbols: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of `[positions, num_codebooks]` whose fields begin at whole bytes and stay in the cache."""
    step = max(8, 2**17 // symbols.shape[1] // 8 * 8)
    for start in range(0, len(symbols), step):
        yield symbols[start : start + step]


def _field_type(bits: tuple[int, ...]) -> np.dtype:
    """The narrowest big-endian unsigned integer with room for every field."""
    return np.min_scalar_type(2 ** max(bits) - 1).newbyteorder(">")


def _to_fields(span: np.ndarray, bits: tuple[int, ...]) -> bytes:
    words = span.astype(_field_type(bits), order="C")
    word_bits = np.unpackbits(words.view(np.uint8).reshape(-1)).reshape(*span.shape, -1)
    fields = [word_bits[:, k, word_bits.shape[2] - width :] for k, width in enumerate(bits)]
    return np.packbits(np.concatenate(fields, axis=1)).tobytes()


def _from_fields(stream: np.ndarray, bits: tuple[int, ...], span: np.ndarray) -> None:
    """Fills `span` with the codes in `stream`."""
    stream_bits = np.unpackbits(stream)
    used = len(span) * sum(bits)
    if stream_bits[used:].any():
        raise InputError("expected zero bits behind the last code, got others: these bytes are not pack()'s")
    fields = np.split(stream_bits[:used].reshape(len(span), -1), np.cumsum(bits[:-1]), axis=1)
    word_type = _field_type(bits)
    word_bits = np.zeros((*span.shape, 8 * word_type.itemsize), np.uint8)
    for k, width in enumerate(bits):
        word_bits[:, k, word_bits.shape[2] - width :] = fields[k]
    span[:] = np.packbits(word_bits.reshape(-1)).view(word_type).reshape(span.shape)


@lru_cache(maxsize=64)
def _block_positions(sizes: tuple[int, ...]) -> int:
    radix = math.prod(sizes)
    for positions in count(1):
        num_bytes = _block_bytes(sizes, positions)
        if radix**positions >= 2 ** (8 * num_bytes - num_bytes // 128):
            return positions


def _block_bytes(sizes: tuple[int, ...], positions: int) -> int:
    return -(-(math.prod(sizes) ** positions - 1).bit_length() // 8)


def _blocks(symbols: np.ndarray, block_positions: int) -> Iterator[np.ndarray]:
    """Views `[blocks, codes of a block]` of `[positions, num_codebooks]`, some equal blocks at a time."""
    whole = len(symbols) - len(symbols) % block_positions
    step = 512 * block_positions
    for start in range(0, whole, step):
        blocks = symbols[start : min(start + step, whole)]
        yield blocks.reshape(len(blocks) // block_positions, -1)
    if whole < len(symbols):
        yield symbols[whole:].reshape(1, -1)


@lru_cache(maxsize=4)
def _radix_tree(sizes: tuple[int, ...], positions: int) -> tuple[list[list[int]], int]:
    """The radices of a block's codes, then of pairs of them, of pairs of pairs, ...; and that of the whole.

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
    """What holds a pair of digits with these radices: a machine word if it can, else Python's integers."""
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
    """Fills `blocks` with the codes in `stream`."""
    levels, radix = _radix_tree(sizes, blocks.shape[1] // len(sizes))
    integers = [int.from_bytes(row.tobytes(), "big") for row in stream.reshape(len(blocks), -1)]
    if max(integers) >= radix:
        raise InputError("expected blocks below their radix, got a greater one: these bytes are not pack()'s")
    values = np.array(integers, object)[:, None]
    for i in reversed(range(len(levels))):
        number = _number_type(levels[i])
        values = values.astype(number, copy=False)
        right = np.array(levels[i][1::2], number)
        digits = np.empty((len(values), len(levels[i])), number)
        digits[:, ::2] = values // right
        digits[:, 1::2] = values - digits[:, ::2] * right
        values = digits[:, -(len(levels[i - 1]) // 2 if i else blocks.shape[1]) :]
    blocks[:] = values


# Files


@dataclass(frozen=True)
class CodeFile:
    """What a code file holds.

    codes: int64 `[batch, num_codebooks, *grid]`. name: the variant that made them.
    size: the signal's axes behind batch and channels, to which `decode` crops; None: not stated.
    lengths: int64 `[batch]`, valid steps of each item's first axis in a padded batch; None: all.
    frame_rate: of video, in frames a second.
    """

    codes: Tensor
    name: str
    codebook_sizes: tuple[int, ...]
    size: tuple[int, ...] | None = None
    lengths: Tensor | None = None
    frame_rate: float | None = None

    def check(self, name: str) -> None:
        """InputError unless the variant `name` made these codes."""
        if name != self.name:
            raise InputError(
                f"expected codes of {name!r}, got codes of {self.name!r}, which only {self.name!r} decodes"
            )


def save_codes(
    path: str | Path,
    codes: Tensor,
    *,
    name: str,
    codebook_sizes: Sequence[int],
    size: Sequence[int] | None = None,
    lengths: Tensor | None = None,
    frame_rate: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write codes with what decoding them takes, whole or not at all.

    The file has an array `codes` in the narrowest unsigned integer that `codebook_sizes` needs, an int64 array
    `lengths` where given, and a JSON object with `format`, `name`, `codebook_sizes`, `size` and for video
    `frame_rate`: in `.npz` the string array `zoo_codes`, in `.safetensors` the entry `zoo_codes` of its metadata.

    Args:
        path: ends in `.npz` or `.safetensors`.
        codes: integers `[batch, num_codebooks, *grid]`.
        name, codebook_sizes, size, lengths, frame_rate: as in `CodeFile`.
        overwrite: whether a file that is there already is replaced.

    Raises:
        InputError: another suffix, or shape, dtype or range of the codes, `size` or `lengths`.
        MediaError: the file exists or cannot be written.
    """
    path = Path(path)
    _check_suffix(path)
    sizes = _check_sizes(codebook_sizes)
    codes = _check_codes(codes, sizes)
    arrays = {"codes": codes.cpu().numpy().astype(np.min_scalar_type(max(sizes) - 1))}
    if lengths is not None:
        arrays["lengths"] = _check_lengths(lengths, codes).cpu().numpy()
    if size is not None:
        size = _check_size(size, codes)
    header = {"format": FORMAT, "name": name, "codebook_sizes": sizes, "size": size}
    header = json.dumps(header if frame_rate is None else header | {"frame_rate": float(frame_rate)})
    with atomic_path(path, overwrite) as temporary:
        if path.suffix == ".npz":
            np.savez(temporary, zoo_codes=np.array(header), **arrays)
        else:
            temporary.write_bytes(safetensors.numpy.save(arrays, {"zoo_codes": header}))


def load_codes(path: str | Path) -> CodeFile:
    """Read what `save_codes` wrote.

    Raises:
        InputError: a suffix other than `.npz` and `.safetensors`.
        MediaError: a file that is missing, damaged, or holds no codes.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        return _code_file(*(_read_npz if path.suffix == ".npz" else _read_safetensors)(path))
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes NumPy's reader raise nearly anything
        raise MediaError(f"{path}: not a code file, or a damaged one: {error}") from error


def _read_npz(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file}
    return str(arrays["zoo_codes"]) if "zoo_codes" in arrays else None, arrays


def _read_safetensors(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    with safe_open(path, "np") as file:
        header = (file.metadata() or {}).get("zoo_codes")
    return header, safetensors.numpy.load_file(path)


def _code_file(header: str | None, arrays: dict[str, np.ndarray]) -> CodeFile:
    if header is None or "codes" not in arrays:
        raise InputError("it has no entry 'zoo_codes' or 'codes'")
    fields = json.loads(header)
    if fields["format"] != FORMAT:
        raise InputError(f"expected format {FORMAT!r}, got {fields['format']!r}")
    sizes = _check_sizes(fields["codebook_sizes"])
    codes = _check_codes(_from_array(arrays["codes"]), sizes)
    lengths = _check_lengths(_from_array(arrays["lengths"]), codes) if "lengths" in arrays else None
    size = None if fields["size"] is None else _check_size(fields["size"], codes)
    return CodeFile(codes, str(fields["name"]), sizes, size, lengths, fields.get("frame_rate"))


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "iu":
        raise InputError(f"expected an array of integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


# Checks


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"expected a code file ending in .npz or .safetensors, got {path}")


def _check_sizes(codebook_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(codebook_sizes)
    if not sizes or any(not isinstance(size, int) or not 1 <= size < 2**63 for size in sizes):
        raise InputError(f"expected codebook_sizes as integers from 1 to below 2 ** 63, got {sizes}")
    return sizes


def _check_codes(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The codes as int64."""
    if not _is_integer(codes):
        raise InputError(f"expected codes as an integer tensor, got {_kind(codes)}")
    if codes.ndim < 3 or codes.shape[1] != len(sizes) or codes.numel() == 0:
        raise InputError(f"expected codes as [batch, {len(sizes)}, *grid], got {list(codes.shape)}")
    codes = codes.to(torch.int64)
    for k, size in enumerate(sizes):
        least, greatest = (int(bound) for bound in codes[:, k].aminmax())
        if least < 0 or greatest >= size:
            raise InputError(f"expected codes of codebook {k} in [0, {size}), got {least} to {greatest}")
    return codes


def _check_size(size: Sequence[int], codes: Tensor) -> tuple[int, ...]:
    # A signal may have more axes than its codes: the tokens of a 1D tokenizer stand for an image.
    if len(size) < codes.ndim - 2 or any(not isinstance(length, int) or length < 1 for length in size):
        raise InputError(f"expected size as positive integers, at least {codes.ndim - 2}, got {tuple(size)}")
    return tuple(size)


def _check_lengths(lengths: Tensor, codes: Tensor) -> Tensor:
    """The lengths as int64."""
    if not _is_integer(lengths) or lengths.shape != codes.shape[:1] or int(lengths.min()) < 1:
        raise InputError(f"expected lengths as {len(codes)} positive integers, one per item, got {lengths}")
    return lengths.to(torch.int64)


def _positions(sizes: tuple[int, ...], shape: Sequence[int]) -> int:
    if len(shape) < 3 or shape[1] != len(sizes) or min(shape) < 1:
        raise InputError(f"expected shape as (batch, {len(sizes)}, *grid), got {tuple(shape)}")
    return math.prod(shape) // len(sizes)


def _is_integer(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in INTEGERS


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
