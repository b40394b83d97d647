"""Any data that a user names as shards of items."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from pathlib import Path

from zoo import modalities
from zoo.codes.files import CODE_SUFFIXES
from zoo.errors import InputError
from zoo.modalities import Modality
from zoo.sources.folders import Entry, entries_in, entry_of, media_entries, shards_of, without_doubles
from zoo.sources.items import Shard
from zoo.sources.locations import Codes, Manifest, MediaFolder, Shards, SingleFile, locate
from zoo.sources.manifests import manifest_entries
from zoo.sources.table_shards import table_shards
from zoo.sources.tables import Table
from zoo.sources.tars import TarShard


def open_shards(data: str | Path | Iterable[str | Path], modality: str, items_per_shard: int | None) -> list[Shard]:
    """As `zoo.sources.open_source`."""
    kind = modalities.get(modality)
    is_number = isinstance(items_per_shard, int) and not isinstance(items_per_shard, bool)
    if items_per_shard is not None and not (is_number and items_per_shard >= 1):
        raise InputError(f"expected items_per_shard of at least 1, got {reprlib.repr(items_per_shard)}")
    inputs = [data] if isinstance(data, str | Path) else list(data)
    if not inputs:
        raise InputError("expected data as a path or as several paths, got none")
    shards: list[Shard] = []
    files: list[Entry] = []
    for location in map(locate, inputs):
        match location:
            case MediaFolder(place):
                files += media_entries(place, kind)
            case SingleFile(place):
                files.append(entry_of(place))
            case _:
                shards += _cut(files, kind, items_per_shard) + _shards_of(location, kind, items_per_shard)
                files = []
    shards += _cut(files, kind, items_per_shard)
    unique: dict[str, Shard] = {}
    for shard in shards:
        unique.setdefault(shard.name, shard)
    return list(unique.values())


def _shards_of(location: Shards | Table | Manifest | Codes, kind: Modality, items_per_shard: int | None) -> list[Shard]:
    match location:
        case Shards(places):
            return [TarShard(place, kind.name) for place in places]
        case Table():
            return list(table_shards(location, kind.name, items_per_shard))
        case Manifest(place):
            return list(shards_of(manifest_entries(place, kind), kind.name, items_per_shard))
        case Codes(place):
            entries = entries_in(place, CODE_SUFFIXES) if place.is_dir() else [entry_of(place)]
            return list(shards_of(entries, kind.name, items_per_shard))


def _cut(files: list[Entry], kind: Modality, items_per_shard: int | None) -> list[Shard]:
    return list(shards_of(without_doubles(files), kind.name, items_per_shard))
