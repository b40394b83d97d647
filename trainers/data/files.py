"""Media files in folders, in WebDataset shards and in tables: lists whose order depends on the data alone."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

import numpy as np
from webdataset.tariterators import base_plus_ext

import zoo.modalities
from zoo.errors import MediaError
from zoo.modalities import MediaBytes, media_files
from zoo.trainers.data.locations import Location
from zoo.trainers.data.tables import Table, TableFiles

METADATA = re.compile(r"__[^/]*__($|/)")  # members of a shard that webdataset passes over


class MediaFiles(Protocol):
    """Media files in a fixed order: what lies at an index depends on the data alone, whoever reads it."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray:
        """Size of each file in bytes."""

    def open(self, index: int) -> tuple[str, Path | MediaBytes]:
        """The file's modality, and the file; MediaError if it cannot be read from where it lies."""


def open_files(location: Location, modalities: Sequence[str], first: int | None = None) -> MediaFiles:
    """The files of any of `modalities`; `first`: only so many of them, from the start.

    Raises:
        InputError: a table that cannot be loaded, or that has no column or several columns of `modalities`.
        MediaError: no file is there.
    """
    if isinstance(location, Table):
        return TableFiles(location, modalities, first)
    if isinstance(location, tuple):
        return ShardFiles(location, modalities, first)
    return FolderFiles(location, modalities, first)


class FolderFiles:
    """The files in a folder and below it, in the order of their paths."""

    def __init__(self, folder: Path, modalities: Sequence[str], first: int | None = None):
        self.paths = media_files(folder, *modalities)[:first]
        self._modality_of = by_suffix(modalities)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([path.stat().st_size for path in self.paths])

    def open(self, index: int) -> tuple[str, Path]:
        path = self.paths[index]
        return self._modality_of[path.suffix.lower()], path


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    offset, size: its place in the shard, in bytes. size None: the shard is damaged from `offset` on.
    """

    shard: Path
    name: str
    modality: str
    offset: int
    size: int | None

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"


class ShardFiles:
    """One file of each sample of WebDataset shards, in the order of the shards and of their members.

    A sample is the members in a row whose names are the same up to the first dot. Its file is the first member whose
    whole suffix is one of the modalities': of `0.json`, `0.mask.png` and `0.jpg` the last. The shards' headers are read
    once, without the contents (25 to 50 microseconds a member); from then on any sample can be read.
    """

    def __init__(self, shards: Sequence[Path], modalities: Sequence[str], first: int | None = None):
        members = chain.from_iterable(samples(shard, modalities) for shard in shards)
        self.members = list(islice(members, first))
        if not self.members:
            raise MediaError(f"{shards[0]}: expected samples of {' or '.join(modalities)} in the shards, got none")

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([member.size or 0 for member in self.members])

    def open(self, index: int) -> tuple[str, MediaBytes]:
        member = self.members[index]
        if member.size is None:
            raise MediaError(f"{member.shard}: damaged: nothing can be read after byte {member.offset}")
        # Opened each time, as a file of a folder is: a process that is forked or spawned shares no position.
        try:
            with open(member.shard, "rb") as file:
                file.seek(member.offset)
                content = file.read(member.size)
        except OSError as error:
            raise MediaError(f"{member}: cannot be read: {error.strerror}") from error
        if len(content) < member.size:
            raise MediaError(f"{member}: cut short: {len(content)} of {member.size} bytes")
        return member.modality, MediaBytes(content, str(member))


def samples(shard: Path, modalities: Sequence[str]) -> Iterator[Member]:
    """The file of each sample, and at the end of a damaged shard one member without a size in place of the rest."""
    modality_of = by_suffix(modalities)
    end, taken = 0, None
    try:
        with open(shard, "rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    end = archive.offset
                    key, suffix = base_plus_ext(member.name)
                    if not member.isreg() or key is None or key == taken or METADATA.match(member.name):
                        continue
                    modality = modality_of.get(f".{suffix.lower()}")
                    if modality is not None:
                        taken = key
                        yield Member(shard, member.name, modality, member.offset_data, member.size)
            # tarfile takes a header that it does not understand for the end of the archive.
            file.seek(end)
            is_whole = not any(file.read(tarfile.BLOCKSIZE))
    except (tarfile.TarError, OSError):
        is_whole = False
    if not is_whole:
        yield Member(shard, "", modalities[0], end, None)


def by_suffix(modalities: Sequence[str]) -> dict[str, str]:
    """The modality of each suffix, of those given."""
    return {suffix: modality for modality in modalities for suffix in zoo.modalities.get(modality).suffixes}
