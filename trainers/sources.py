"""Where training data are: folders of files, WebDataset shards, tables of the Hub's `datasets`.

A source is a list of media files: its order and what lies at a place depend on the data alone, whoever reads it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from zoo.errors import InputError, MediaError
from zoo.media import SUFFIXES, MediaBytes, media_files, modality_of

if TYPE_CHECKING:
    import datasets
    import pyarrow

METADATA = re.compile(r"__[^/]*__($|/)")  # members of a shard that webdataset passes over
TABLE = re.compile(
    r"hf://(?P<path>[^:@]+)(@(?P<revision>[^:@]+))?"
    r"(:(?P<split>[^:\[]*(\[[^\]]*\])?)(:(?P<column>[^:]+))?)?"
)


class Source(Protocol):
    """Media files in a fixed order."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each file."""

    def open(self, index: int) -> tuple[Modality, Path | MediaBytes]:
        """What the file holds, and the file; MediaError where it cannot be had."""


@dataclass(frozen=True)
class Table:
    """A data set that the package `datasets` loads.

    path: `owner/name` or `owner/name/configuration` on the Hub, or a folder or parquet file.
    revision: commit, tag or branch on the Hub. split: as `datasets` takes it; None: "train" or the only one.
    column: None: the only one that holds the modality.
    """

    path: str
    revision: str | None = None
    split: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        return self.path + (f":{self.split}" if self.split else "")


Location = Path | tuple[Path, ...] | Table


def locate(data: str | Path) -> Location:
    """What data given by a user are: a folder of files, shards, or a table.

    Args:
        data: a folder of media files; one with `.tar` shards directly in it, a shard, or several as
            `train-{0000..0099}.tar`; a folder that `datasets` has saved or one of parquet files, a parquet file, or
            `hf://owner/name[/configuration][@revision][:split[:column]]`, where `hf:///folder` and `hf://./folder`
            are on this machine.

    Raises:
        InputError: nothing is there, or a folder holds several kinds of data.
    """
    path = Path(data)
    if str(data).startswith("hf:"):
        match = TABLE.fullmatch(str(data))
        if match is None:
            raise InputError(f"expected hf://owner/name[/configuration][@revision][:split[:column]], got {data}")
        return Table(match["path"], match["revision"], match["split"] or None, match["column"])
    if path.is_dir():
        return _locate_in_folder(path)
    if path.suffix == ".parquet" and path.is_file():
        return Table(str(path))
    if path.suffix != ".tar" and "{" not in path.name:
        raise InputError(f"{data}: no such folder, shard (.tar) or table (.parquet, hf://owner/name)")
    try:
        shards = tuple(map(Path, [path] if path.exists() else expand_urls(str(data))))
    except ValueError as error:
        raise InputError(f"{data}: cannot be expanded: {error}") from None
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: no such file; shards are read from this machine's disks")
    return shards


def _locate_in_folder(folder: Path) -> Location:
    children = sorted(folder.iterdir())
    shards = tuple(child for child in children if child.suffix == ".tar" and not child.name.startswith("."))
    has_tables = is_saved(folder) or any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))
    has_files = any(child.suffix.lower() in suffixes for child in children for suffixes in SUFFIXES.values())
    kinds = {"shards (.tar)": shards, "tables (.parquet or saved)": has_tables, "media files": has_files}
    found = [kind for kind, is_there in kinds.items() if is_there]
    if len(found) > 1:
        raise InputError(f"{folder}: expected one kind of data, got {' and '.join(found)}")
    return shards or (Table(str(folder)) if has_tables else folder)


def training_and_validation(
    data: str | Path, validation_data: str | Path | None = None
) -> tuple[Location, Location | None]:
    """Where the data of a run are.

    Args:
        data: as in `locate`; where a folder has `train` in it, that, and `val` or `validation` for validation; of a
            table without a split, "train", and "validation" or "val" for validation.
        validation_data: as in `locate`, in place of what `data` holds.

    Raises:
        InputError: as in `locate`, or a table that cannot be loaded.
    """
    validation = None
    if (Path(data) / "train").is_dir():
        folder = Path(data)
        training = locate(folder / "train")
        validation = next((locate(folder / name) for name in ("val", "validation") if (folder / name).is_dir()), None)
    else:
        training = locate(data)
        if isinstance(training, Table) and training.split is None and not validation_data:
            splits = load_table(training)
            names = [name for name in ("validation", "val") if isinstance(splits, dict) and name in splits]
            validation = replace(training, split=names[0]) if names else None
    return training, locate(validation_data) if validation_data else validation


def open_source(location: Location, modalities: Sequence[Modality], first: int | None = None) -> Source:
    """The files (the `first`) of any of `modalities`.

    Raises:
        InputError: a table that cannot be loaded, or of which no column or several hold them.
        MediaError: none is there.
    """
    if isinstance(location, Table):
        return Rows(location, modalities, first)
    return Shards(location, modalities, first) if isinstance(location, tuple) else Folder(location, modalities, first)


class Folder:
    """The files in a folder and below it, in the order of their paths."""

    def __init__(self, folder: Path, modalities: Sequence[Modality], first: int | None = None):
        self.paths = media_files(folder, *modalities)[:first]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([path.stat().st_size for path in self.paths])

    def open(self, index: int) -> tuple[Modality, Path]:
        path = self.paths[index]
        return modality_of(path), path


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard. size: bytes; None: what is behind `offset` is damaged."""

    shard: Path
    name: str
    modality: str
    offset: int
    size: int | None

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"


class Shards:
    """The samples of WebDataset shards, in the order of the shards and of their members.

    Of a sample, the members in turn whose names are the same up to the first dot, the first member counts whose
    whole suffix is one of the modalities': of `0.json`, `0.mask.png` and `0.jpg` the last. The shards are gone through
    once, without their contents (25 to 50 microseconds a member); from then on any sample can be read.
    """

    def __init__(self, shards: Sequence[Path], modalities: Sequence[Modality], first: int | None = None):
        members = chain.from_iterable(samples(shard, modalities) for shard in shards)
        self.members = list(islice(members, first))
        if not self.members:
            raise MediaError(f"{shards[0]}: expected samples of {' or '.join(modalities)} in the shards, got none")

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([member.size or 0 for member in self.members])

    def open(self, index: int) -> tuple[Modality, MediaBytes]:
        member = self.members[index]
        if member.size is None:
            raise MediaError(f"{member.shard}: damaged: nothing can be read behind byte {member.offset}")
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


def samples(shard: Path, modalities: Sequence[Modality]) -> Iterator[Member]:
    """The member of each sample that counts, and one in place of all that a damaged shard's rest may have held."""
    wanted = {suffix[1:]: modality for modality in modalities for suffix in SUFFIXES[modality]}
    end, taken = 0, None
    try:
        with open(shard, "rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    end = archive.offset
                    key, suffix = base_plus_ext(member.name)
                    if not member.isreg() or key is None or key == taken or METADATA.match(member.name):
                        continue
                    modality = wanted.get(suffix.lower())
                    if modality is not None:
                        taken = key
                        yield Member(shard, member.name, modality, member.offset_data, member.size)
            # tarfile takes a header that it does not understand for the end.
            file.seek(end)
            is_whole = not any(file.read(tarfile.BLOCKSIZE))
    except (tarfile.TarError, OSError):
        is_whole = False
    if not is_whole:
        yield Member(shard, "", modalities[0], end, None)


class Rows:
    """The cells of a table's column, in the order of its rows."""

    def __init__(self, table: Table, modalities: Sequence[Modality], first: int | None = None):
        loaded = load_table(table)
        rows = choose_split(loaded, table) if isinstance(loaded, dict) else loaded
        self.table = table
        self.modality, self.column = choose_column(rows, table, modalities)
        try:
            rows = rows.select_columns(self.column).cast_column(self.column, media_types()[self.modality](decode=False))
        except Exception as error:  # whatever pyarrow makes of a column of another type
            raise InputError(f"{table}: column {self.column!r} holds no {self.modality}: {error}") from error
        rows = rows if first is None else rows.select(range(min(first, len(rows))))
        if not len(rows):
            raise MediaError(f"{table}: holds no row")
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # Pickled, the rows are the names of the files that they are in, and the cells would be their contents.
        return {key: value for key, value in self.__dict__.items() if key != "_cells"}

    @cached_property
    def _cells(self) -> pyarrow.ChunkedArray:
        return self._rows[:][self.column]

    @cached_property
    def sizes(self) -> np.ndarray:
        import pyarrow.compute as pc

        return pc.binary_length(pc.struct_field(self._cells, "bytes")).fill_null(0).to_numpy()

    def open(self, index: int) -> tuple[Modality, Path | MediaBytes]:
        cell = self._cells[index].as_py() or {"bytes": None, "path": None}
        content, path = cell["bytes"], cell["path"]
        if content is not None:
            return self.modality, MediaBytes(content, f"{self.table} row {index}" + (f": {path}" if path else ""))
        if path is None:
            raise MediaError(f"{self.table} row {index}: holds no {self.modality}")
        return self.modality, Path(path)


def is_saved(folder: Path) -> bool:
    """Whether `datasets` has saved it."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_table(table: Table) -> datasets.Dataset | dict[str, datasets.Dataset]:
    """The split, or splits by name, among which the table's is to be chosen.

    Raises:
        InputError: the package is missing, or the table is not there, not whole, or has no such split.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(f"{table}: tables need datasets: pip install 'tokenizer-zoo[scale]'") from error
    path, name = Path(table.path), None
    try:
        if is_saved(path):
            saved = datasets.load_from_disk(table.path)
            return saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=table.path, split=table.split)
        repository = table.path
        if not path.exists() and repository.count("/") == 2:
            repository, _, name = repository.rpartition("/")
        return datasets.load_dataset(repository, name, revision=table.revision, split=table.split)
    except Exception as error:  # of the network, the Hub, the files or the builder
        raise InputError(f"{table}: cannot be loaded: {error}") from error


def choose_split(splits: dict[str, datasets.Dataset], table: Table) -> datasets.Dataset:
    wanted = table.split or ("train" if len(splits) > 1 else next(iter(splits)))
    if wanted not in splits:
        raise InputError(f"{table}: expected a split among {', '.join(splits)}, got {wanted!r}")
    return splits[wanted]


def choose_column(rows: datasets.Dataset, table: Table, modalities: Sequence[Modality]) -> tuple[Modality, str]:
    """What is read of the table, and its column: the one that the table names, or the only one of such a type."""
    types = media_types()
    known = [modality for modality in modalities if modality in types]
    if not known:
        raise InputError(f"{table}: tables hold {', '.join(types)}; a {modalities[0]} is read from files or shards")
    typed = {
        name: modality
        for name, feature in rows.features.items()
        for modality in known
        if isinstance(feature, types[modality])
    }
    columns = ", ".join(rows.column_names)
    if table.column is None and len(typed) != 1:
        raise InputError(
            f"{table}: {len(typed)} of the columns {columns} are of {' or '.join(known)}; "
            "name one: hf://PATH:SPLIT:COLUMN"
        )
    column = table.column or next(iter(typed))
    if column not in rows.column_names:
        raise InputError(f"{table}: expected a column among {columns}, got {column!r}")
    return typed.get(column, known[0]), column


def media_types() -> dict[str, type[datasets.Image | datasets.Audio | datasets.Video]]:
    import datasets

    return {"image": datasets.Image, "audio": datasets.Audio, "video": datasets.Video}
