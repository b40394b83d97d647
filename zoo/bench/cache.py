"""What was done already: reconstructions and figures of items, found again by content.

A key is the hash of the original file, of what was done to it before, and of the candidate's identity. Under it lie a
JSON record, the reconstruction and the codes. Figures in a record are filed under their metric and the version of its
definition. Everything is written whole or not at all, the record last, so that an interrupted run leaves no half.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.bench.candidates import TokenizerCandidate
from zoo.bench.signals import LOSSLESS_SUFFIX
from zoo.codes import load_codes, save_codes
from zoo.errors import MediaError
from zoo.files import atomic_path

FORMAT = "zoo-bench-cache-1"


def content_key(*parts: Any) -> str:
    """SHA-256 over JSON of plain values."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Of a file's content; MediaError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror or error}") from error


class Entry:
    """What is known under one key.

    Attributes:
        reconstruction: path of the lossless file.
    """

    def __init__(self, folder: Path, key: str, modality: str):
        self._stem = folder / key[:2] / key
        self.reconstruction = self._stem.with_suffix(LOSSLESS_SUFFIX[modality])
        self._record, self._codes = self._stem.with_suffix(".json"), self._stem.with_suffix(".npz")

    def read_item(self) -> dict[str, Any] | None:
        """The record of an item; None where its reconstruction or its codes are lost too."""
        record = self.read()
        if record is None or not self.reconstruction.is_file() or (record["has_codes"] and not self._codes.is_file()):
            return None
        return record

    def read(self) -> dict[str, Any] | None:
        """The record; None where there is none that can be read."""
        try:
            return json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, record: dict[str, Any]) -> None:
        make_folder(self._stem.parent)
        with atomic_path(self._record, overwrite=True) as temporary:
            temporary.write_text(json.dumps(record))

    def write_codes(self, codes: Tensor, candidate: TokenizerCandidate) -> None:
        make_folder(self._stem.parent)
        spec = candidate.source.spec
        save_codes(self._codes, codes, name=spec.name, codebook_sizes=candidate.sizes, overwrite=True)

    def read_codes(self) -> Tensor:
        return load_codes(self._codes).codes


def make_folder(folder: Path) -> None:
    """With its parents, unless it is there; MediaError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: cannot be made: {error.strerror or error}") from error
