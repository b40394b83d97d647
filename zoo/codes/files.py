"""Code files: codes with everything that is needed to decode them."""

from __future__ import annotations

import json
import math
import reprlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import safe_open
from torch import Tensor

from zoo.codes.checks import (
    check_against_spec,
    check_codes,
    check_frame_rate,
    check_lengths,
    check_pixel_aspect,
    check_size,
    check_sizes,
)
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec

FORMAT = "zoo-codes-1"
CODE_SUFFIXES = (".npz", ".safetensors")
ENTRIES = ("zoo_codes", "codes", "lengths")
LONGEST_HEADER, LONGEST_NAME = 2**20, 256  # characters
# Bytes, and ratio of compression, of an entry that another program compressed; the greater of both limits counts.
MOST_INFLATED, LARGEST_RATIO = 2**24, 100
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class CodeFile:
    """The contents of a code file.

    codes: int64 `[batch, num_codebooks, *grid]`; of residual codebooks perhaps the first few, with their
        `codebook_sizes`. name: the variant that made them.
    size: size of the signal, its axes after batch and channels, to which `decode` crops; None: not stated.
    lengths: int64 `[batch]`, valid steps of each item's first axis in a padded batch; None: all.
    frame_rate: frames per second of a video. pixel_aspect: width by height of its pixels; None: they are square.
    options: those of `preprocess` and `encode` that the codes were made with, by name; None: not stated.
    source_bytes: size of the file that was encoded; None: not stated.
    """

    codes: Tensor
    name: str
    codebook_sizes: tuple[int, ...]
    size: tuple[int, ...] | None = None
    lengths: Tensor | None = None
    frame_rate: float | None = None
    pixel_aspect: float | None = None
    options: Mapping[str, Any] | None = None
    source_bytes: int | None = None

    def check(self, spec: TokenizerSpec) -> None:
        """Raise InputError unless the variant of `spec` made these codes, and gives as many for the stated size."""
        if spec.name != self.name:
            raise InputError(
                f"expected codes of {spec.name!r}, got codes of {self.name!r}, which only {self.name!r} decodes"
            )
        check_against_spec(self.codes, self.codebook_sizes, self.size, self.lengths, spec)


def save_codes(
    path: str | Path,
    codes: Tensor,
    *,
    name: str,
    codebook_sizes: Sequence[int],
    size: Sequence[int] | None = None,
    lengths: Tensor | None = None,
    frame_rate: float | None = None,
    pixel_aspect: float | None = None,
    options: Mapping[str, Any] | None = None,
    source_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write codes with everything that is needed to decode them, whole or not at all.

    The file has an array `codes` in the narrowest unsigned integer that `codebook_sizes` needs, an int64 array
    `lengths` where given, and a JSON object with `format`, `name`, `codebook_sizes`, `size` and, where given,
    `frame_rate`, `pixel_aspect`, `options` and `source_bytes`: in `.npz` the string array `zoo_codes`, in
    `.safetensors` the entry `zoo_codes` of its metadata.

    Args:
        path: ends in `.npz` or `.safetensors`.
        codes: integers `[batch, num_codebooks, *grid]`.
        name, codebook_sizes, size, lengths, frame_rate, pixel_aspect, options, source_bytes: as in `CodeFile`.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: another suffix, or shape, dtype or range of the codes, `size`, `lengths`, `frame_rate` or
            `pixel_aspect`.
        MediaError: the file exists or cannot be written.
    """
    path = Path(path)
    _check_suffix(path)
    sizes = check_sizes(codebook_sizes)
    codes = check_codes(codes, sizes)
    arrays = {"codes": codes.cpu().numpy().astype(np.min_scalar_type(max(sizes) - 1))}
    if lengths is not None:
        arrays["lengths"] = check_lengths(lengths, codes).cpu().numpy()
    if size is not None:
        size = check_size(size, codes)
    fields: dict[str, Any] = {"format": FORMAT, "name": _check_name(name), "codebook_sizes": sizes, "size": size}
    if frame_rate is not None:
        fields["frame_rate"] = check_frame_rate(frame_rate)
    if pixel_aspect is not None:
        fields["pixel_aspect"] = check_pixel_aspect(pixel_aspect)
    if options is not None:
        fields["options"] = dict(options)
    if source_bytes is not None:
        fields["source_bytes"] = source_bytes
    header = json.dumps(fields)
    with atomic_path(path, overwrite) as temporary:
        if path.suffix == ".npz":
            np.savez(temporary, allow_pickle=False, zoo_codes=np.array(header), **arrays)
        else:
            temporary.write_bytes(safetensors.numpy.save(arrays, {"zoo_codes": header}))


def load_codes(path: str | Path) -> CodeFile:
    """Read what `save_codes` wrote; memory is within a fixed multiple of the file's size, whatever its headers state.

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
    except Exception as error:  # a damaged file makes the readers of zip, NumPy and JSON raise nearly anything
        raise MediaError(f"{path}: not a code file, or a damaged one: {error or type(error).__name__}") from error


def _read_npz(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        present = set(archive.namelist())
        arrays = {name: _read_npy(archive, f"{name}.npy") for name in ENTRIES if f"{name}.npy" in present}
    header = arrays.pop("zoo_codes", None)
    if header is None:
        return None, arrays
    if header.dtype.kind != "U" or header.shape != ():
        raise InputError(f"expected 'zoo_codes' as a string, got {header.dtype} {list(header.shape)}")
    return str(header), arrays


def _read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an archive; its stated shape is compared with the size of the entry before memory is taken."""
    member = archive.getinfo(name)
    if member.file_size > max(MOST_INFLATED, LARGEST_RATIO * member.compress_size):
        raise InputError(f"{name}: states {member.file_size} bytes, packed to {member.compress_size}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in NPY_HEADERS:
            raise InputError(f"{name}: expected version 1.0 or 2.0 of NumPy's format, got {version}")
        shape, is_fortran, dtype = NPY_HEADERS[version](file)
        if dtype.kind not in "iuU":
            raise InputError(f"{name}: expected integers or a string, got {dtype}")
        stated, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if min(shape, default=0) < 0 or stated != held:
            raise InputError(f"{name}: states {dtype} {list(shape)}, which are {stated} bytes, but holds {held}")
        array: np.ndarray = np.frombuffer(file.read(), dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_safetensors(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    with safe_open(path, "np") as file:  # compares stated shapes with the bytes that are there
        present = set(file.keys())
        arrays = {name: file.get_tensor(name) for name in ENTRIES if name in present}
        return (file.metadata() or {}).get("zoo_codes"), arrays


def _code_file(header: str | None, arrays: dict[str, np.ndarray]) -> CodeFile:
    if header is None or "codes" not in arrays:
        raise InputError("it has no entry 'zoo_codes' or 'codes'")
    if len(header) > LONGEST_HEADER:
        raise InputError(f"expected 'zoo_codes' of at most {LONGEST_HEADER} characters, got {len(header)}")
    try:
        fields = json.loads(header)
    except RecursionError:
        raise InputError("expected 'zoo_codes' as a JSON object, got one that is nested too deep") from None
    if not isinstance(fields, dict):
        raise InputError(f"expected 'zoo_codes' as a JSON object, got {type(fields).__name__}")
    if missing := [key for key in ("format", "name", "codebook_sizes") if key not in fields]:
        raise InputError(f"'zoo_codes' has no {missing[0]!r}")
    if fields["format"] != FORMAT:
        raise InputError(f"expected format {FORMAT!r}, got {reprlib.repr(fields['format'])}")
    sizes = check_sizes(fields["codebook_sizes"])
    codes = check_codes(_from_array(arrays["codes"]), sizes)
    size, frame_rate, pixel_aspect, options, source_bytes = (
        fields.get(key) for key in ("size", "frame_rate", "pixel_aspect", "options", "source_bytes")
    )
    if options is not None and not isinstance(options, dict):
        raise InputError(f"expected options as a JSON object, got {type(options).__name__}")
    if source_bytes is not None and not isinstance(source_bytes, int):
        raise InputError(f"expected source_bytes as an integer, got {type(source_bytes).__name__}")
    return CodeFile(
        codes,
        _check_name(fields["name"]),
        sizes,
        size=None if size is None else check_size(size, codes),
        lengths=check_lengths(_from_array(arrays["lengths"]), codes) if "lengths" in arrays else None,
        frame_rate=None if frame_rate is None else check_frame_rate(frame_rate),
        pixel_aspect=None if pixel_aspect is None else check_pixel_aspect(pixel_aspect),
        options=options,
        source_bytes=source_bytes,
    )


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "iu":
        raise InputError(f"expected an array of integers, got {array.dtype}")
    if array.dtype.itemsize == 8 and array.size and array.max() >= 2**63:
        raise InputError(f"expected integers below 2 ** 63, got {array.max()}")
    return torch.from_numpy(array.astype(np.int64))


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
        raise InputError(f"expected name as a string of 1 to {LONGEST_NAME} characters, got {reprlib.repr(name)}")
    return name


def _check_suffix(path: Path) -> None:
    if path.suffix not in CODE_SUFFIXES:
        raise InputError(f"expected a code file ending in .npz or .safetensors, got {path}")
