"""Tables of media files that Hugging Face's `datasets` loads: on the Hub, saved in a folder, or in parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zoo.errors import InputError, MediaError
from zoo.modalities import MediaBytes

if TYPE_CHECKING:
    import datasets
    import pyarrow

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Name of a data set that the package `datasets` loads.

    path: `owner/name` or `owner/name/configuration` on the Hub, or a folder or parquet file, also by its URL.
    revision: commit, tag or branch on the Hub. split: as `datasets` takes it; None: "train", or the only split.
    column: name of the column; None: the only one that holds the modality.
    """

    path: str
    revision: str | None = None
    split: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        return self.path + (f":{self.split}" if self.split else "")


class TableFiles:
    """The media files in a table's column, in the order of its rows.

    Args:
        table: where the table is. modalities: those that are read. first: number of rows from the start; None: all.

    Raises:
        InputError: the table cannot be loaded, or has no column or several columns of `modalities`.
        MediaError: the table has no row.
    """

    def __init__(self, table: Table, modalities: Sequence[str], first: int | None = None):
        loaded = load_table(table)
        rows = choose_split(loaded, table) if isinstance(loaded, dict) else loaded
        self.table = table
        self.modality, self.column = choose_column(rows.features, table, modalities)
        try:
            rows = rows.select_columns(self.column).cast_column(self.column, media_types()[self.modality](decode=False))
        except Exception as error:  # pyarrow raises errors of many kinds for a column of another type
            raise InputError(
                f"{table}: column {self.column!r} holds no {self.modality}: {first_line(error)}"
            ) from error
        rows = rows if first is None else rows.select(range(min(first, len(rows))))
        if not len(rows):
            raise MediaError(f"{table}: holds no row")
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # The rows are pickled as the names of their files; the cells would be pickled as the files' contents.
        return {key: value for key, value in self.__dict__.items() if key != "_cells"}

    @cached_property
    def _cells(self) -> pyarrow.ChunkedArray:
        return self._rows[:][self.column]

    @cached_property
    def sizes(self) -> np.ndarray:
        import pyarrow.compute as pc

        return pc.binary_length(pc.struct_field(self._cells, "bytes")).fill_null(0).to_numpy()

    def open(self, index: int) -> tuple[str, Path | MediaBytes]:
        cell = self._cells[index].as_py() or {"bytes": None, "path": None}
        content, path = cell["bytes"], cell["path"]
        if content is not None:
            return self.modality, MediaBytes(content, f"{self.table} row {index}" + (f": {path}" if path else ""))
        if path is None:
            raise MediaError(f"{self.table} row {index}: holds no {self.modality}")
        return self.modality, Path(path)


def first_line(error: Exception) -> str:
    """The first line of an error of `datasets` or pyarrow, which may be followed by the schema."""
    return str(error).partition("\n")[0] or type(error).__name__


def is_saved(folder: Path) -> bool:
    """Whether `datasets` has saved a data set in this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_table(table: Table) -> datasets.Dataset | dict[str, datasets.Dataset]:
    """Load the table's split, or all splits by name if the table names none or is saved with several.

    Raises:
        InputError: the package `datasets` is missing, or the table is not there, not whole, or has no such split.
    """
    datasets, path = datasets_for(table), Path(table.path)
    try:
        if is_saved(path):
            saved = datasets.load_from_disk(table.path)
            return saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=table.path, split=table.split)
        repository, name = repository_of(table)
        return datasets.load_dataset(repository, name, revision=table.revision, split=table.split)
    except Exception as error:  # of the network, the Hub, the files or the builder
        raise InputError(f"{table}: cannot be loaded: {first_line(error)}") from error


def datasets_for(table: Table) -> ModuleType:
    """Return the package `datasets`; InputError, in which `table` is named, if it is missing."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(f"{table}: tables need datasets: pip install 'tokenizer-zoo[scale]'") from error
    return datasets


def repository_of(table: Table) -> tuple[str, str | None]:
    """Return the repository of the Hub, or the folder, and the configuration that a table's path names."""
    if not Path(table.path).exists() and table.path.count("/") == 2:
        repository, _, name = table.path.rpartition("/")
        return repository, name
    return table.path, None


def choose_split(splits: Mapping[str, T], table: Table) -> T:
    """The split that the table names, or "train", or the only one; InputError if there is no such split."""
    wanted = table.split or ("train" if len(splits) > 1 else next(iter(splits)))
    if wanted not in splits:
        raise InputError(f"{table}: expected a split among {', '.join(splits)}, got {wanted!r}")
    return splits[wanted]


def choose_column(features: datasets.Features, table: Table, modalities: Sequence[str]) -> tuple[str, str]:
    """Modality and name of the column that is read: the one that the table names, or the only one of `modalities`.

    Raises:
        InputError: no such column, or none or several of `modalities`.
    """
    types = media_types()
    known = [modality for modality in modalities if modality in types]
    if not known:
        raise InputError(f"{table}: tables hold {', '.join(types)}; a {modalities[0]} is read from files or shards")
    typed = {
        name: modality
        for name, feature in features.items()
        for modality in known
        if isinstance(feature, types[modality])
    }
    columns = ", ".join(features)
    if table.column is None and len(typed) != 1:
        raise InputError(
            f"{table}: {len(typed)} of the columns {columns} are of {' or '.join(known)}; "
            "name one: hf://PATH:SPLIT:COLUMN"
        )
    column = table.column or next(iter(typed))
    if column not in features:
        raise InputError(f"{table}: expected a column among {columns}, got {column!r}")
    return typed.get(column, known[0]), column


def media_types() -> dict[str, type[datasets.Image | datasets.Audio | datasets.Video]]:
    """The type of a column of `datasets`, by the modality that it holds."""
    import datasets

    return {"image": datasets.Image, "audio": datasets.Audio, "video": datasets.Video}
