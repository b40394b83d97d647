"""Media files in folders, in WebDataset shards and in tables, in any order: number n depends on the data alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

import numpy as np

from zoo.errors import InputError, MediaError
from zoo.modalities import MediaBytes, media_files
from zoo.sources.locations import Location, MediaFolder, Shards, is_on_this_machine
from zoo.sources.places import Place
from zoo.sources.tables import Table, TableFiles
from zoo.sources.tars import Headers, by_suffix, content_of, samples


class MediaFiles(Protocol):
    """Media files in a fixed order: what lies at an index depends on the data alone, whoever reads it."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray:
        """Size of each file in bytes."""

    def open(self, index: int) -> tuple[str, Path | MediaBytes]:
        """The file's modality, and the file; MediaError if it cannot be read from where it lies."""


def open_files(location: Location, modalities: Sequence[str], first: int | None = None) -> MediaFiles:
    """Open the files of any of `modalities`; `first`: how many of them, from the start; None: all.

    Raises:
        InputError: data that cannot be read in any order, such as a manifest or shards behind fsspec; a table that
            cannot be loaded, or that has no column or several columns of `modalities`.
        MediaError: no file is there.
    """
    if is_on_this_machine(location):
        match location:
            case Table():
                return TableFiles(location, modalities, first)
            case Shards(places):
                return ShardFiles(places, modalities, first)
            case MediaFolder(Path() as folder):
                return FolderFiles(folder, modalities, first)
    raise InputError(
        f"{location}: expected a folder or shards on this machine, or a table, which can be read in any order"
    )


class FolderFiles:
    """The files in a folder and below it, in the order of their paths."""

    def __init__(self, folder: Path, modalities: Sequence[str], first: int | None = None):
        self.paths = media_files(folder, *modalities)[:first]
        self._modality_of = by_suffix(modalities)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([size_of(path) for path in self.paths])

    def open(self, index: int) -> tuple[str, Path]:
        path = self.paths[index]
        return self._modality_of[path.suffix.lower()], path


class ShardFiles:
    """One file of each sample of WebDataset shards, in the order of the shards and of their members.

    A sample is the members in a row whose names are the same up to the first dot (WebDataset's rule). Its file is the
    first member whose whole suffix is one of the modalities': of `0.json`, `0.mask.png` and `0.jpg` the last. A sample
    in which only the end of a suffix is one, as in `photo v2.0.png` or `a.left.jpg`, has no such file, and opening it
    is an error: name the files without other dots (`photo v2_0.png`, `a_left.jpg`) when the shards are written, or
    unpack the shards, since every file of a folder counts. Hidden members (`.x.png`) do not count. The shards' headers
    are read once, without the contents (25 to 50 microseconds a member); from then on any sample can be read.
    """

    def __init__(self, shards: Sequence[Place], modalities: Sequence[str], first: int | None = None):
        members = chain.from_iterable(samples(Headers(shard), modalities) for shard in shards)
        self.members = list(islice(members, first))
        if not self.members:
            raise MediaError(f"{shards[0]}: expected samples of {' or '.join(modalities)} in the shards, got none")

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([member.size for member in self.members])

    def open(self, index: int) -> tuple[str, MediaBytes]:
        member = self.members[index]
        content, problem = None, member.problem
        if problem is None:
            # Opened each time, as a file of a folder is: a process that is forked or spawned shares no position.
            try:
                with member.shard.open("rb") as file:
                    content, problem = content_of(file, member)
            except OSError as error:
                raise MediaError(f"{member}: cannot be read: {error.strerror}") from error
        if content is None:
            raise MediaError(f"{member}: {problem}")
        return member.modality, MediaBytes(content, str(member))


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it is gone, which is reported when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
