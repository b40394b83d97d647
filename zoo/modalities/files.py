"""Media files on disk and in memory, for the readers of every modality."""

from __future__ import annotations

import io
import math
import os
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError

LONGEST = 1e9  # seconds, about 32 years; no file is longer


@dataclass(frozen=True)
class MediaBytes:
    """The bytes of a media file, as members of archives and cells of tables hold them.

    name: name for error messages. Its suffix decides the format where the bytes alone do not.
    """

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


MediaFile = str | Path | MediaBytes


def opened(file: MediaFile) -> str | Path | io.BytesIO:
    """Return a path or a binary file at its start, for libraries that take either."""
    return io.BytesIO(file.content) if isinstance(file, MediaBytes) else file


def as_file(source: Any) -> MediaFile | None:
    """Return a path, bytes or a binary file object as a `MediaFile`; None for anything else.

    A file object is read from its current position to its end; its name is kept for error messages.
    """
    if isinstance(source, str | Path | MediaBytes):
        return source
    if isinstance(source, os.PathLike):
        return Path(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return MediaBytes(bytes(source), "bytes")
    if callable(getattr(source, "read", None)):
        return MediaBytes(source.read(), str(getattr(source, "name", "file object")))
    return None


def check_seconds(seconds: Any) -> float:
    """Return a length in seconds, at most `LONGEST`; InputError unless it is a number greater than 0."""
    is_number = isinstance(seconds, int | float | np.integer | np.floating) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise InputError(f"expected more than 0 seconds, got {reprlib.repr(seconds)}")
    return float(min(seconds, LONGEST))


def check_start(start: Any) -> float:
    """Return a start in seconds, at most `LONGEST`; 0 for None; InputError unless it is a number of at least 0."""
    if start is None:
        return 0.0
    is_number = isinstance(start, int | float | np.integer | np.floating) and not isinstance(start, bool)
    if not is_number or not 0 <= start < math.inf:
        raise InputError(f"expected a start of at least 0 seconds, got {reprlib.repr(start)}")
    return float(min(start, LONGEST))


@contextmanager
def named_warnings(file: MediaFile) -> Iterator[None]:
    """Issue the warnings of libraries that are raised in the block with the name of the file that they are about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warnings.warn(f"{file}: {warning.message}", warning.category, stacklevel=4)
