"""WebDataset shards: tar archives in which neighbouring members with one key are a sample."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

from webdataset.tariterators import base_plus_ext

import zoo.modalities
from zoo.modalities import MediaBytes
from zoo.sources.items import Item
from zoo.sources.places import Place

METADATA = re.compile(r"__[^/]*__($|/)")  # members of a shard that webdataset skips
AT_ONCE = 2**24  # bytes that are read at once, whatever a header states


@dataclass(frozen=True)
class TarShard:
    """The samples of one WebDataset shard, read from its beginning to its end; see `files_of` for what counts.

    An item's key is the member's name; of a second member with that name it ends in `#2`.
    """

    place: Place
    modality: str

    @property
    def name(self) -> str:
        return str(self.place)

    def items(self) -> Iterator[Item]:
        headers, names = Headers(self.place), Counter[str]()
        for member in samples(headers, (self.modality,)):
            key = member.name or f"after byte {member.offset}"
            names[key] += 1
            yield self._item(headers, member, key if names[key] == 1 else f"{key}#{names[key]}")

    def _item(self, headers: Headers, member: Member, key: str) -> Item:
        content, problem = (None, member.problem) if member.problem is not None else headers.read(member)
        if content is None:
            return Item(self.name, key, None, member.modality, problem=f"{member}: {problem}")
        return Item(self.name, key, MediaBytes(content, str(member)), member.modality)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    offset, size: its place in the shard, in bytes.
    problem: why there is nothing to read; None: there is.
    """

    shard: Place
    name: str
    modality: str
    offset: int
    size: int
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}" if self.name else str(self.shard)


class Headers:
    """The headers of a shard's members, for one iteration, after which `problem` is why it ended early, if it did.

    end: number of the byte after the last header that was read and its content.
    """

    def __init__(self, shard: Place):
        self.shard, self.end = shard, 0
        self.problem: str | None = None
        self._file: BinaryIO | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            with self.shard.open("rb") as file:
                self._file = file
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    while (member := archive.next()) is not None:
                        archive.members.clear()  # type: ignore[attr-defined]  # which would grow with the shard
                        if member.size < 0 or archive.offset <= self.end:
                            raise tarfile.ReadError("a header that points back")
                        self.end = archive.offset
                        yield member
                # tarfile takes a header that it does not understand for the end of the archive.
                file.seek(self.end)
                if any(file.read(tarfile.BLOCKSIZE)):
                    raise tarfile.ReadError("no header")
        except Exception as error:  # tarfile has errors of many kinds for headers of random bytes
            is_open = self._file is not None
            reason = getattr(error, "strerror", None) or error
            self.problem = (
                f"damaged: nothing can be read after byte {self.end}" if is_open else f"cannot be read: {reason}"
            )

    def read(self, member: Member) -> tuple[bytes | None, str | None]:
        """Return the content of the member whose header was the last to be read, or the problem that it has."""
        assert self._file is not None, "a header was read"
        try:
            return content_of(self._file, member)
        except Exception as error:  # of a store's client
            return None, f"cannot be read: {error}"


def content_of(file: BinaryIO, member: Member) -> tuple[bytes | None, str | None]:
    """Return the content of a member of the open shard `file`, or the problem that it has."""
    file.seek(member.offset)
    parts, left = [], member.size
    while left and (part := file.read(min(left, AT_ONCE))):
        parts.append(part)
        left -= len(part)
    if left:
        return None, f"cut short: {member.size - left} of {member.size} bytes"
    return (b"".join(parts), None) if member.size else (None, "holds no bytes")


def samples(headers: Headers, modalities: Sequence[str]) -> Iterator[Member]:
    """The file of each sample; a damaged shard ends with one member that holds the problem, in place of the rest."""
    modality_of = by_suffix(modalities)
    for key, members in groupby(headers, key=lambda member: base_plus_ext(member.name)[0]):
        if key is not None:
            yield from files_of(members, headers.shard, modality_of)
    if headers.problem is not None:
        yield Member(headers.shard, "", modalities[0], headers.end, 0, headers.problem)


def files_of(members: Iterable[tarfile.TarInfo], shard: Place, modality_of: Mapping[str, str]) -> list[Member]:
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


def by_suffix(modalities: Sequence[str]) -> dict[str, str]:
    """The modality of each suffix of the given modalities."""
    return {suffix: modality for modality in modalities for suffix in zoo.modalities.get(modality).suffixes}
