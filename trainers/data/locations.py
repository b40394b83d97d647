"""Where training data are: a folder of files, WebDataset shards, or a table of Hugging Face's `datasets`."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from webdataset.shardlists import expand_urls

from zoo import modalities
from zoo.errors import InputError
from zoo.trainers.conversion import shown
from zoo.trainers.data.tables import Table, is_saved, load_table
from zoo.trainers.paths import named_path

MOST_SHARDS = 100_000

TABLE = re.compile(
    r"hf://(?P<path>[^:@]+)(@(?P<revision>[^:@]+))?"
    r"(:(?P<split>[^:\[]*(\[[^\]]*\])?)(:(?P<column>[^:]+))?)?"
)
Location = Path | tuple[Path, ...] | Table


def locate(data: str | Path) -> Location:
    """Find out what kind of data a user named: a folder of files, shards, or a table.

    Args:
        data: a folder of media files; a folder with `.tar` shards directly in it, a shard, or several shards as
            `train-{0000..0099}.tar`; a folder that `datasets` has saved, a folder of parquet files, a parquet file, or
            `hf://owner/name[/configuration][@revision][:split[:column]]`, where `hf:///folder` and `hf://./folder`
            are on this machine.

    Raises:
        InputError: nothing is there, or a folder holds several kinds of data.
    """
    if str(data).startswith("hf:"):
        match = TABLE.fullmatch(str(data))
        if match is None:
            got = shown(str(data))
            raise InputError(f"expected hf://owner/name[/configuration][@revision][:split[:column]], got {got}")
        return Table(match["path"], match["revision"], match["split"] or None, match["column"])
    path = named_path(data, "data")
    if path.is_dir():
        return _locate_in_folder(path)
    if path.suffix == ".parquet" and path.is_file():
        return Table(str(path))
    if path.suffix != ".tar" and "{" not in path.name:
        raise InputError(f"{data}: no such folder, shard (.tar) or table (.parquet, hf://owner/name)")
    try:
        shards = tuple(map(Path, [path] if path.exists() else expand_urls(check_pattern(str(data)))))
    except ValueError as error:
        raise InputError(f"{data}: cannot be expanded: {error}") from None
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: no such file; shards are read from this machine's disks")
    return shards


def _locate_in_folder(folder: Path) -> Location:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    shards = tuple(child for child in children if child.suffix == ".tar" and not child.name.startswith("."))
    has_tables = is_saved(folder) or any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))
    has_files = any(child.suffix.lower() in modality.suffixes for child in children for modality in modalities.every())
    kinds = {"shards (.tar)": shards, "tables (.parquet or saved)": has_tables, "media files": has_files}
    found = [kind for kind, is_there in kinds.items() if is_there]
    if len(found) > 1:
        raise InputError(f"{folder}: expected one kind of data, got {' and '.join(found)}")
    return shards or (Table(str(folder)) if has_tables else folder)


def check_pattern(pattern: str) -> str:
    """Return `pattern`, names of shards with braces; InputError if it stands for more than `MOST_SHARDS` shards."""
    ranges = [abs(int(end) - int(start)) + 1 for start, end in re.findall(r"\{(-?\d{1,18})\.\.(-?\d+)", pattern)]
    lists = [group.count(",") + 1 for group in re.findall(r"\{([^{}]*)\}", pattern)]
    if pattern.count("{") > 8 or len(pattern) > 4096 or math.prod(ranges + lists) > MOST_SHARDS:
        raise InputError(f"{shown(pattern)}: expected at most {MOST_SHARDS} shards")
    return pattern


def training_and_validation(
    data: str | Path, validation_data: str | Path | None = None
) -> tuple[Location, Location | None]:
    """Find a run's training data and validation data; None: no validation data.

    Args:
        data: as in `locate`. A folder with `train` inside stands for that, and its `val` or `validation` for the
            validation data; a table without a split stands for its "train", and its "validation" or "val" for the
            validation data.
        validation_data: as in `locate`, in place of validation data that `data` holds.

    Raises:
        InputError: as in `locate`, or a table that cannot be loaded.
    """
    validation: Location | None = None
    if not str(data).startswith("hf:") and (named_path(data, "data") / "train").is_dir():
        folder = Path(data)
        training = locate(folder / "train")
        validation = next((locate(folder / name) for name in ("val", "validation") if (folder / name).is_dir()), None)
    else:
        training = locate(data)
        if isinstance(training, Table) and training.split is None and validation_data is None:
            splits = load_table(training)
            names = [name for name in ("validation", "val") if isinstance(splits, dict) and name in splits]
            validation = replace(training, split=names[0]) if names else None
    return training, validation if validation_data is None else locate(validation_data)
