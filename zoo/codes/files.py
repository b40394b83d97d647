"""Code files: codes with everything that is needed to decode them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import safe_open
from torch import Tensor

from zoo.codes.checks import check_codes, check_lengths, check_size, check_sizes
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

FORMAT = "zoo-codes-1"


@dataclass(frozen=True)
class CodeFile:
    """The contents of a code file.

    codes: int64 `[batch, num_codebooks, *grid]`. name: the variant that made them.
    size: size of the signal, its axes after batch and channels, to which `decode` crops; None: not stated.
    lengths: int64 `[batch]`, valid steps of each item's first axis in a padded batch; None: all.
    frame_rate: frames per second of a video.
    """

    codes: Tensor
    name: str
    codebook_sizes: tuple[int, ...]
    size: tuple[int, ...] | None = None
    lengths: Tensor | None = None
    frame_rate: float | None = None

    def check(self, name: str) -> None:
        """Raise InputError unless the variant `name` made these codes."""
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
    """Write codes with everything that is needed to decode them, whole or not at all.

    The file has an array `codes` in the narrowest unsigned integer that `codebook_sizes` needs, an int64 array
    `lengths` if given, and a JSON object with `format`, `name`, `codebook_sizes`, `size` and for video
    `frame_rate`: in `.npz` the string array `zoo_codes`, in `.safetensors` the entry `zoo_codes` of its metadata.

    Args:
        path: ends in `.npz` or `.safetensors`.
        codes: integers `[batch, num_codebooks, *grid]`.
        name, codebook_sizes, size, lengths, frame_rate: as in `CodeFile`.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: another suffix, or a wrong shape, dtype or range of the codes, `size` or `lengths`.
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
    fields: dict[str, Any] = {"format": FORMAT, "name": name, "codebook_sizes": sizes, "size": size}
    header = json.dumps(fields if frame_rate is None else fields | {"frame_rate": float(frame_rate)})
    with atomic_path(path, overwrite) as temporary:
        if path.suffix == ".npz":
            np.savez(temporary, allow_pickle=False, zoo_codes=np.array(header), **arrays)
        else:
            temporary.write_bytes(safetensors.numpy.save(arrays, {"zoo_codes": header}))


def load_codes(path: str | Path) -> CodeFile:
    """Read a file that `save_codes` wrote.

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
    sizes = check_sizes(fields["codebook_sizes"])
    codes = check_codes(_from_array(arrays["codes"]), sizes)
    lengths = check_lengths(_from_array(arrays["lengths"]), codes) if "lengths" in arrays else None
    size = None if fields["size"] is None else check_size(fields["size"], codes)
    return CodeFile(codes, str(fields["name"]), sizes, size, lengths, fields.get("frame_rate"))


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "iu":
        raise InputError(f"expected an array of integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"expected a code file ending in .npz or .safetensors, got {path}")
