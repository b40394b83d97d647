"""Shards of tables: row groups of parquet files, rows of saved data sets, and streams of the Hub's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError, MediaError, ZooError
from zoo.modalities import MediaBytes
from zoo.sources.items import Item, Shard, items_in_shard
from zoo.sources.places import Place, RemotePath, is_remote, media_of, parts_below, place_of
from zoo.sources.tables import (
    Table,
    choose_column,
    choose_split,
    datasets_for,
    first_line,
    is_saved,
    load_table,
    media_types,
    repository_of,
)

if TYPE_CHECKING:
    import datasets
    import pyarrow


@dataclass(frozen=True)
class ParquetShard:
    """Row groups of one parquet file, read row by row. An item's key is the number of its row in the file.

    groups: their numbers; None: all. rows: the numbers of their rows; None: all.
    """

    place: Place
    column: str
    modality: str
    groups: range | None = None
    rows: range | None = None

    @property
    def name(self) -> str:
        return str(self.place) if self.rows is None else f"{self.place}[{self.rows.start}:{self.rows.stop}]"

    def items(self) -> Iterator[Item]:
        yield from items_of(self._cells(), str(self.place), self.modality, 0 if self.rows is None else self.rows.start)

    def _cells(self) -> Iterator[Any]:
        import pyarrow.parquet

        with self.place.open("rb") as file:
            # Page by page, of which media files' are large: a row group as a whole may be larger than memory.
            table = pyarrow.parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
            for batch in table.iter_batches(1, self.groups, [self.column], use_threads=False):
                yield batch.column(0)[0].as_py()


@dataclass(frozen=True)
class SavedShard:
    """Some rows of a data set that `datasets` has saved. An item's key is the number of its row in the split."""

    table: Table
    column: str
    modality: str
    rows: range

    @property
    def name(self) -> str:
        return f"{self.table}[{self.rows.start}:{self.rows.stop}]"

    def items(self) -> Iterator[Item]:
        yield from items_of(self._cells(), str(self.table), self.modality, self.rows.start)

    def _cells(self) -> Iterator[Any]:
        rows = saved_rows(self.table).select_columns(self.column).with_format("arrow")
        for number in self.rows:
            yield rows[number][self.column][0].as_py()


@dataclass(frozen=True)
class StreamedShard:
    """A part of a data set that `datasets` streams. An item's key is the number of its row in the part.

    stream: the part, whose only column is not decoded. source: the table, and the part's number among all parts.
    """

    stream: datasets.IterableDataset
    source: str
    column: str
    modality: str

    @property
    def name(self) -> str:
        return self.source

    def items(self) -> Iterator[Item]:
        cells = (row[self.column] for row in self.stream)
        yield from items_of(cells, self.source, self.modality, 0)


def items_of(cells: Iterator[Any], source: str, modality: str, first: int) -> Iterator[Item]:
    """Yield the items in the cells of a column; cells that cannot be read end with an item that holds the problem."""
    number = first
    try:
        for number, cell in enumerate(cells, first):
            yield item_of(cell, source, str(number), modality)
            del cell  # which would stay in memory while the next one is read
            number += 1
    except Exception as error:  # pyarrow, the Hub and its builders raise errors of many kinds
        problem = f"{source}: nothing can be read from row {number} on: {first_line(error)}"
        yield Item(source, f"from {number} on", None, modality, problem=problem)


def item_of(cell: Any, source: str, key: str, modality: str) -> Item:
    """Return the item in a cell, which may have a problem."""
    try:
        return Item(source, key, content_of(cell, f"{source} row {key}", modality), modality)
    except ZooError as error:
        return Item(source, key, None, modality, problem=str(error))


def content_of(cell: Any, name: str, modality: str) -> Path | MediaBytes:
    """Return the media file in a cell: bytes, a path, or both as `datasets` stores them.

    Raises:
        InputError, MediaError: as in `media_of`, or the cell holds nothing.
    """
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, str):
        content, path = None, content
    if content:
        return MediaBytes(content, f"{name}: {path}" if path else name)
    if not path:
        raise MediaError(f"{name}: holds no {modality}")
    return media_of(RemotePath(path) if "::" in path else place_of(path))  # `datasets` names a file in an archive so


def table_shards(table: Table, modality: str, items_per_shard: int | None) -> Sequence[Shard]:
    """Return the shards of a table: about `items_per_shard` rows of a local one, otherwise a file or part each.

    A local parquet file is cut between row groups, which are read from its end; of files behind fsspec and on the Hub
    the driver reads none but the first.

    Raises:
        InputError: the table cannot be loaded, has no such split, or no column or several columns of the modality.
        MediaError: the table has no row.
    """
    package = datasets_for(table)
    if not is_remote(table.path) and is_saved(Path(table.path)):
        return _saved_shards(table, modality, items_per_shard)
    try:
        splits = _files_of(table, package)
        is_parquet = all(file.suffix == ".parquet" for files in splits.values() for file in files)
    except ZooError:
        raise
    except Exception as error:  # of the network, the Hub or the files
        raise InputError(f"{table}: cannot be loaded: {first_line(error)}") from error
    if not is_parquet:
        return _streamed_shards(table, modality, list(splits), package)
    files = choose_split(splits, table)
    try:
        with files[0].open("rb") as file:
            features = package.Features.from_arrow_schema(_parquet(file).schema_arrow)
    except ZooError:
        raise
    except Exception as error:
        raise InputError(f"{files[0]}: cannot be read as parquet: {first_line(error)}") from error
    _, column = choose_column(features, table, (modality,))
    _check_type(features, table, column, modality)
    wholes = [ParquetShard(place, column, modality) for place in files]
    footers = [None if isinstance(place, RemotePath) else _footer(place) for place in files]
    size = items_in_shard(sum(footer.num_rows for footer in footers if footer is not None), items_per_shard)
    shards: list[ParquetShard] = []
    for whole, footer in zip(wholes, footers, strict=True):
        shards += [whole] if footer is None else _groups(whole, footer, size)
    if not shards:
        raise MediaError(f"{table}: holds no row")
    return shards


def _parquet(file: Any) -> pyarrow.parquet.ParquetFile:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file)


def _footer(place: Path) -> pyarrow.parquet.FileMetaData | None:
    """Return what the end of a file says of its row groups; None if it cannot be read, as the shard will report."""
    try:
        with place.open("rb") as file:
            return _parquet(file).metadata
    except Exception:  # pyarrow raises errors of many kinds
        return None


def _groups(whole: ParquetShard, footer: pyarrow.parquet.FileMetaData, items_per_shard: int) -> list[ParquetShard]:
    """Cut a file between row groups."""
    shards = []
    group = row = count = 0
    for number in range(footer.num_row_groups):
        count += footer.row_group(number).num_rows
        if count >= items_per_shard or (count and number == footer.num_row_groups - 1):
            shards.append(replace(whole, groups=range(group, number + 1), rows=range(row, row + count)))
            group, row, count = number + 1, row + count, 0
    return shards


def _files_of(table: Table, package: Any) -> dict[str, list[Place]]:
    """Return the files of each split."""
    path = place_of(table.path) if is_remote(table.path) else Path(table.path)
    if path.is_file():
        return {"train": [path]}
    if isinstance(path, RemotePath):
        if not path.is_dir():
            raise InputError(f"{table}: no such file or folder")
        if table.split is not None:
            raise InputError(f"{table}: expected no split of a folder behind fsspec, got {table.split!r}")
        files = [file for file in path.files_below() if file.suffix == ".parquet"]
        return {"train": sorted(files, key=lambda file: parts_below(path, file))}
    repository, name = repository_of(table)
    builder = package.load_dataset_builder(repository, name, revision=table.revision)
    return {
        str(split): [_as_named(path, place_of(str(file))) for file in files]
        for split, files in builder.config.data_files.items()
    }


def _as_named(folder: Path, file: Place) -> Place:
    """Return a file that `datasets` found in a folder, whose path it makes absolute, by the folder's own name."""
    root = folder.absolute()
    return folder / file.relative_to(root) if isinstance(file, Path) and file.is_relative_to(root) else file


def _check_type(features: datasets.Features, table: Table, column: str, modality: str) -> None:
    from pyarrow import types

    kind = features.arrow_schema.field(column).type
    plain = (types.is_binary, types.is_large_binary, types.is_string, types.is_large_string)
    is_struct = types.is_struct(kind) and {"bytes", "path"} & {kind.field(i).name for i in range(kind.num_fields)}
    if not is_struct and not any(is_kind(kind) for is_kind in plain):
        raise InputError(f"{table}: column {column!r} holds no {modality}: expected bytes or paths, got {kind}")


def saved_rows(table: Table) -> datasets.Dataset:
    """Return the rows of a split that `datasets` has saved; they stay on the disk."""
    loaded = load_table(table)
    return choose_split(loaded, table) if isinstance(loaded, dict) else loaded


def _saved_shards(table: Table, modality: str, items_per_shard: int | None) -> list[SavedShard]:
    rows = saved_rows(table)
    _, column = choose_column(rows.features, table, (modality,))
    _check_type(rows.features, table, column, modality)
    if not len(rows):
        raise MediaError(f"{table}: holds no row")
    size = items_in_shard(len(rows), items_per_shard)
    parts = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    return [SavedShard(table, column, modality, part) for part in parts]


def _streamed_shards(table: Table, modality: str, splits: list[str], package: Any) -> list[StreamedShard]:
    split = choose_split({name: name for name in splits}, table)
    repository, name = repository_of(table)
    try:
        stream = package.load_dataset(repository, name, revision=table.revision, split=split, streaming=True)
        features = stream.features
        if features is None:
            raise InputError(f"{table}: states no types of its columns, so that none is known to hold {modality}")
        kind, column = choose_column(features, table, (modality,))
        _check_type(features, table, column, modality)
        stream = stream.select_columns([column])
        if isinstance(features[column], media_types()[kind]):
            stream = stream.cast_column(column, media_types()[kind](decode=False))
        parts = stream.num_shards
        return [
            StreamedShard(stream.shard(parts, part), f"{table} part {part} of {parts}", column, modality)
            for part in range(parts)
        ]
    except ZooError:
        raise
    except Exception as error:  # of the network, the Hub or the builder
        raise InputError(f"{table}: cannot be streamed: {first_line(error)}") from error
