"""The cache: reconstructions and figures of items, found again by content.

A key is the hash of the original file, of its preprocessing and of the candidate's identity. Under a key are a JSON
record, the reconstruction and the codes. A figure in a record is named by its metric and the version of the metric's
definition. Files are written whole or not at all, the record last, so that an interrupted run leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.bench.candidates import TokenizerCandidate
from zoo.codes import load_codes, save_codes
from zoo.errors import MediaError
from zoo.files import atomic_path

FORMAT = "zoo-bench-cache-1"


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of plain values as JSON."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content; MediaError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror or error}") from error


class Entry:
    """The record, reconstruction and codes under one key.

    Args:
        folder: folder of the cache.
        key: key of the entry, as `content_key` returns it.
        suffix: suffix of the lossless file.

    Attributes:
        reconstruction: path of the lossless file.
    """

    def __init__(self, folder: Path, key: str, suffix: str):
        self._stem = folder / key[:2] / key
        self.reconstruction = self._stem.with_suffix(suffix)
        self._record, self._codes = self._stem.with_suffix(".json"), self._stem.with_suffix(".npz")

    def read_item(self) -> dict[str, Any] | None:
        """Return the record of an item; None where the record, its reconstruction or its codes are missing."""
        record = self.read()
        if record is None or not self.reconstruction.is_file() or (record["has_codes"] and not self._codes.is_file()):
            return None
        return record

    def read(self) -> dict[str, Any] | None:
        """Return the record; None where there is none that can be read."""
        try:
            return json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, record: dict[str, Any]) -> None:
        """Write the record."""
        make_folder(self._stem.parent)
        with atomic_path(self._record, overwrite=True) as temporary:
            temporary.write_text(json.dumps(record))

    def write_codes(self, codes: Tensor, candidate: TokenizerCandidate) -> None:
        """Write the codes of the item."""
        make_folder(self._stem.parent)
        spec = candidate.lazy.spec
        save_codes(self._codes, codes, name=spec.name, codebook_sizes=candidate.sizes, overwrite=True)

    def read_codes(self) -> Tensor:
        """Return the codes of the item."""
        return load_codes(self._codes).codes


def make_folder(folder: Path) -> None:
    """Make a folder and its parents unless it exists; MediaError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: cannot be made: {error.strerror or error}") from error
