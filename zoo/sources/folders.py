"""Shards of files: those in folders, those that a user or a manifest names, and code files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.codes import CodeFile, load_codes
from zoo.codes.files import CODE_SUFFIXES
from zoo.errors import MediaError, ZooError
from zoo.modalities import MediaBytes, Modality
from zoo.sources.items import Item, items_in_shard
from zoo.sources.places import Place, all_below, key_of, media_of, parent_of, parts_below


@dataclass(frozen=True)
class Entry:
    """A file of a shard; `source`, `key`, `options` and `problem` as in `Item`. place: None: there is a `problem`."""

    source: str
    key: str
    place: Place | None
    options: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class FileShard:
    """Some files of a source. A file behind fsspec is fetched whole when its item is made, a local one is a path."""

    name: str
    entries: tuple[Entry, ...]
    modality: str

    def items(self) -> Iterator[Item]:
        place, content, problem = None, None, None
        for entry in self.entries:
            if entry.place is None:
                content, problem = None, entry.problem
            elif entry.place != place:  # excerpts of one file follow each other
                content = None  # the file before is not kept while the next one is read
                content, problem = read(entry.place)
            place = entry.place
            yield Item(entry.source, entry.key, content, self.modality, entry.options, problem)


def read(place: Place) -> tuple[Path | MediaBytes | CodeFile | None, str | None]:
    """Return a file as an item has it, or its problem."""
    try:
        media = media_of(place)
        return load_codes(media) if isinstance(media, Path) and media.suffix in CODE_SUFFIXES else media, None
    except ZooError as error:
        return None, str(error)


def shards_of(entries: Sequence[Entry], modality: str, items_per_shard: int | None) -> list[FileShard]:
    """Cut files into shards; a shard's name has the numbers of its files, and a hash of their sources and keys."""
    source = "" if not entries else entries[0].source
    if any(entry.source != source for entry in entries):
        source = f"{source}, ..."
    size = items_in_shard(len(entries), items_per_shard)
    shards = []
    for start in range(0, len(entries), size):
        part = tuple(entries[start : start + size])
        keys = "\0".join(f"{entry.source}\0{entry.key}" for entry in part)
        digest = hashlib.sha256(keys.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        shards.append(FileShard(f"{source}[{start}:{start + len(part)}]#{digest}", part, modality))
    return shards


def entries_in(folder: Place, suffixes: tuple[str, ...]) -> list[Entry]:
    """Return the files in a folder and below it whose names end in one of `suffixes`, in the order of their paths.

    Raises:
        MediaError: there is no such file.
    """
    files = [file for file in all_below(folder) if file.suffix and file.name.lower().endswith(suffixes)]
    if not files:
        raise MediaError(f"{folder}: holds no file ending in {' '.join(suffixes)}")
    files.sort(key=lambda file: parts_below(folder, file))
    return [Entry(str(folder), key_of(folder, file), file) for file in files]


def entry_of(file: Place) -> Entry:
    """Return one file that a user named: its source is its folder, so that it is the same item as in that folder."""
    folder = parent_of(file)
    return Entry(str(folder), key_of(folder, file), file)


def without_doubles(entries: Sequence[Entry]) -> list[Entry]:
    """Leave out files that were named before, by themselves or through another folder; links to files are files."""
    folders: dict[Path, Path] = {}
    kept: dict[Place, Entry] = {}
    for entry in entries:
        place = entry.place
        assert place is not None
        if isinstance(place, Path):
            if place.parent not in folders:
                folders[place.parent] = place.parent.resolve()
            place = folders[place.parent] / place.name
        kept.setdefault(place, entry)
    return list(kept.values())


def media_entries(folder: Place, modality: Modality) -> list[Entry]:
    """Return the media files of a modality in a folder; MediaError if there is none."""
    return entries_in(folder, modality.suffixes)
