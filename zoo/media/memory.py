"""Media files that are in memory, as members of archives and cells of tables are, for the readers of files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MediaBytes:
    """The bytes of a media file.

    name: what errors call it. Where a format goes by its suffix, as that of structures does, it ends in one.
    """

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


MediaFile = str | Path | MediaBytes


def opened(file: MediaFile) -> str | Path | io.BytesIO:
    """What libraries that take a path or a binary file are given, at its start."""
    return io.BytesIO(file.content) if isinstance(file, MediaBytes) else file
