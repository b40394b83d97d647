"""What a user's words for data mean: files, shards, tables, manifests or code files, on disks or behind fsspec."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from webdataset.shardlists import expand_urls

from zoo import modalities
from zoo.codes.files import CODE_SUFFIXES
from zoo.errors import InputError, MediaError, shown
from zoo.sources.places import Place, RemotePath, all_below, is_remote, place_of
from zoo.sources.tables import Table, is_saved

MOST_SHARDS = 100_000
MANIFEST_SUFFIXES = (".jsonl", ".txt")

TABLE = re.compile(
    r"hf://(?P<path>([A-Za-z][A-Za-z0-9+.-]+://)?[^:@]+)(@(?P<revision>[^:@]+))?"
    r"(:(?P<split>[^:\[]*(\[[^\]]*\])?)(:(?P<column>[^:]+))?)?"
)
HUB_FILES = ("hf://datasets/", "hf://buckets/", "hf://spaces/")  # files of the Hub, by fsspec


@dataclass(frozen=True)
class MediaFolder:
    """A folder of media files."""

    place: Place

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class SingleFile:
    """One media file."""

    place: Place

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class Shards:
    """WebDataset shards, in their order."""

    places: tuple[Place, ...]

    def __str__(self) -> str:
        return str(self.places[0]) if len(self.places) == 1 else f"{self.places[0]}, ..."


@dataclass(frozen=True)
class Manifest:
    """A file that lists media files."""

    place: Place

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class Codes:
    """A code file, or a folder of them."""

    place: Path

    def __str__(self) -> str:
        return str(self.place)


Location = MediaFolder | SingleFile | Shards | Table | Manifest | Codes


def locate(data: str | Path) -> Location:
    """Find out what kind of data a user named.

    Args:
        data: one of these, as a path or, unless it says otherwise, as a URL that fsspec knows (`s3://...`):

            - a folder of media files, or one media file;
            - a folder with `.tar` shards directly in it, a shard, or several shards as `train-{0000..0099}.tar`;
            - a folder of parquet files, a parquet file, a folder on this machine that `datasets` has saved, or
              `hf://owner/name[/configuration][@revision][:split[:column]]`, where `hf:///folder`, `hf://./folder` and
              `hf://s3://folder` name a folder or a parquet file with a split or a column;
            - a manifest (`.jsonl` or `.txt`), as `zoo.sources.manifests` describes it;
            - a code file (`.npz` or `.safetensors`) on this machine, or a folder of code files without media files.

            `hf://datasets/owner/name/...` are files of the Hub.

    Raises:
        InputError: nothing is there, or a folder holds several kinds of data.
        MediaError: a URL whose store cannot be reached or refuses.
    """
    if str(data).startswith("hf:") and not str(data).startswith(HUB_FILES):
        return _table(str(data))
    place = place_of(data)
    if place.is_dir():
        return _locate_in_folder(place)
    suffix = place.suffix.lower()
    if suffix == ".tar" or not place.is_file():
        return _shards(place, str(data))
    if suffix == ".parquet":
        return Table(str(place))
    if suffix in MANIFEST_SUFFIXES:
        return Manifest(place)
    if suffix in CODE_SUFFIXES:
        return _codes(place)
    if place.name.lower().endswith(_media_suffixes()):
        return SingleFile(place)
    raise InputError(f"{data}: expected {_KINDS}, got a file ending in {place.suffix!r}")


_KINDS = (
    "a folder, a media file, a shard (.tar), a table (.parquet, hf://owner/name), "
    "a manifest (.jsonl, .txt) or a code file (.npz, .safetensors)"
)


def _table(name: str) -> Table:
    match = TABLE.fullmatch(name)
    if match is None:
        raise InputError(f"expected hf://owner/name[/configuration][@revision][:split[:column]], got {shown(name)}")
    return Table(match["path"], match["revision"], match["split"] or None, match["column"])


def _shards(place: Place, name: str) -> Shards:
    if place.suffix != ".tar" and "{" not in place.name:
        raise InputError(f"{name}: no such file or folder; expected {_KINDS}")
    try:
        names = [name] if place.is_file() else expand_urls(check_pattern(name))
    except ValueError as error:
        raise InputError(f"{name}: cannot be expanded: {error}") from None
    places = tuple(place_of(name) for name in names)
    # A store is asked for the first shard alone; each other one that is not there is reported where it is read.
    for shard in places[:1] if isinstance(places[0], RemotePath) else places:
        if not shard.is_file():
            raise InputError(f"{shard}: no such file")
    return Shards(places)


def _codes(place: Place) -> Codes:
    if isinstance(place, RemotePath):
        raise InputError(f"{place}: expected code files on this machine, got a URL")
    return Codes(place)


def _locate_in_folder(folder: Place) -> Location:
    try:
        children: list[Place] = sorted(folder.iterdir())
    except MediaError:
        raise
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    shards = tuple(child for child in children if child.suffix == ".tar" and not child.name.startswith("."))
    has_tables = any(child.suffix == ".parquet" for child in children) or _holds_tables(folder, children)
    has_files = any(child.name.lower().endswith(_media_suffixes()) for child in children)
    kinds = {"shards (.tar)": shards, "tables (.parquet or saved)": has_tables, "media files": has_files}
    found = [kind for kind, is_there in kinds.items() if is_there]
    if len(found) > 1:
        raise InputError(f"{folder}: expected one kind of data, got {' and '.join(found)}")
    if shards:
        return Shards(shards)
    if has_tables:
        return Table(str(folder))
    if not has_files and _holds_codes_alone(folder):
        return _codes(folder)
    return MediaFolder(folder)


def _holds_tables(folder: Place, children: list[Place]) -> bool:
    if isinstance(folder, Path):
        return is_saved(folder) or any(folder.glob("data/*.parquet"))
    data = [child for child in children if child.name == "data" and child.is_dir()]
    return any(file.suffix == ".parquet" for child in data for file in child.iterdir())


def _holds_codes_alone(folder: Place) -> bool:
    holds_codes = False
    for file in all_below(folder):
        if file.name.lower().endswith(_media_suffixes()):
            return False
        holds_codes = holds_codes or file.suffix in CODE_SUFFIXES
    return holds_codes


def _media_suffixes() -> tuple[str, ...]:
    return tuple(suffix for modality in modalities.every() for suffix in modality.suffixes)


def check_pattern(pattern: str) -> str:
    """Return `pattern`, names of shards with braces; InputError if it stands for more than `MOST_SHARDS` shards."""
    ranges = [abs(int(end) - int(start)) + 1 for start, end in re.findall(r"\{(-?\d{1,18})\.\.(-?\d+)", pattern)]
    lists = [group.count(",") + 1 for group in re.findall(r"\{([^{}]*)\}", pattern)]
    if pattern.count("{") > 8 or len(pattern) > 4096 or math.prod(ranges + lists) > MOST_SHARDS:
        raise InputError(f"{shown(pattern)}: expected at most {MOST_SHARDS} shards")
    return pattern


def is_on_this_machine(location: Location) -> bool:
    """Whether none of a location's files is behind fsspec, other than a data set of the Hub."""
    match location:
        case Shards(places):
            return all(isinstance(place, Path) for place in places)
        case Table(path):
            return not is_remote(path)
    return isinstance(location.place, Path)
