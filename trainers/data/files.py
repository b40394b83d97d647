"""Media files in folders, in WebDataset shards and in tables, in an order that depends on the data alone."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Protocol

import numpy as np
from webdataset.tariterators import base_plus_ext

import zoo.modalities
from zoo.errors import MediaError
from zoo.modalities import MediaBytes, media_files
from zoo.trainers.data.locations import Location
from zoo.trainers.data.tables import Table, TableFiles

METADATA = re.compile(r"__[^/]*__($|/)")  # members of a shard that webdataset skips


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
        return np.array([size_of(path) for path in self.paths])

    def open(self, index: int) -> tuple[str, Path]:
        path = self.paths[index]
        return self._modality_of[path.suffix.lower()], path


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    offset, size: its place in the shard, in bytes.
    problem: why there is nothing to read; None: there is.
    """

    shard: Path
    name: str
    modality: str
    offset: int
    size: int
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}" if self.name else str(self.shard)


class ShardFiles:
    """One file of each sample of WebDataset shards, in the order of the shards and of their members.

    A sample is the members in a row whose names are the same up to the first dot (WebDataset's rule). Its file is the
    first member whose whole suffix is one of the modalities': of `0.json`, `0.mask.png` and `0.jpg` the last. A sample
    in which only the end of a suffix is one, as in `photo v2.0.png` or `a.left.jpg`, has no such file, and opening it
    is an error: name the files without other dots (`photo v2_0.png`, `a_left.jpg`) when the shards are written, or
    unpack the shards, since every file of a folder counts. Hidden members (`.x.png`) do not count. The shards' headers
    are read once, without the contents (25 to 50 microseconds a member); from then on any sample can be read.
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
        return np.array([member.size for member in self.members])

    def open(self, index: int) -> tuple[str, MediaBytes]:
        member = self.members[index]
        if member.problem is not None:
            raise MediaError(f"{member}: {member.problem}")
        # Opened each time, as a file of a folder is: a process that is forked or spawned shares no position.
        try:
            with open(member.shard, "rb") as file:
                file.seek(member.offset)
                content = file.read(min(member.size, size_of(member.shard)))
        except OSError as error:
            raise MediaError(f"{member}: cannot be read: {error.strerror}") from error
        if len(content) < member.size:
            raise MediaError(f"{member}: cut short: {len(content)} of {member.size} bytes")
        return member.modality, MediaBytes(content, str(member))


def samples(shard: Path, modalities: Sequence[str]) -> Iterator[Member]:
    """The file of each sample; a damaged shard ends with one member that holds the problem, in place of the rest."""
    headers, modality_of = Headers(shard), by_suffix(modalities)
    for key, members in groupby(headers, key=lambda member: base_plus_ext(member.name)[0]):
        if key is not None:
            yield from files_of(members, shard, modality_of)
    if not headers.is_whole:
        problem = f"damaged: nothing can be read after byte {headers.end}"
        yield Member(shard, "", modalities[0], headers.end, 0, problem)


def files_of(members: Iterable[tarfile.TarInfo], shard: Path, modality_of: Mapping[str, str]) -> list[Member]:
    """The file of the sample that consists of `members`; if it has none, all that look like one, with the problem."""
    unused = []
    for member in members:
        suffix = base_plus_ext(member.name)[1]
        modality = modality_of.get(f".{suffix.rpartition('.')[2].lower()}")
        if METADATA.match(member.name) or member.isdir() or modality is None:
            continue
        if "." in suffix:
            problem = (
                f"not used: the key of a sample ends at the first dot, so the suffix is .{suffix}; "
                "rename the file, or unpack the shard into a folder"
            )
        elif not member.isreg():
            problem = "not used: not a regular file but a link or a device"
        else:
            return [Member(shard, member.name, modality, member.offset_data, member.size)]
        unused.append(Member(shard, member.name, modality, member.offset_data, member.size, problem))
    return unused


class Headers:
    """The headers of a shard's members, for one iteration, after which `is_whole` is whether all of it was read.

    end: number of the byte after the last header that was read and its content.
    """

    def __init__(self, shard: Path):
        self.shard, self.end, self.is_whole = shard, 0, False

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            with open(self.shard, "rb") as file:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    for member in archive:
                        if member.size < 0 or archive.offset <= self.end:
                            raise tarfile.ReadError("a header that points back")
                        self.end = archive.offset
                        yield member
                # tarfile takes a header that it does not understand for the end of the archive.
                file.seek(self.end)
                self.is_whole = not any(file.read(tarfile.BLOCKSIZE))
        except Exception:  # tarfile has errors of many kinds for headers of random bytes; `is_whole` stays false
            return


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it is gone, which is reported when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def by_suffix(modalities: Sequence[str]) -> dict[str, str]:
    """The modality of each suffix of the given modalities."""
    return {suffix: modality for modality in modalities for suffix in zoo.modalities.get(modality).suffixes}
