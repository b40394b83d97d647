"""What the shards of a source give to a worker."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import fsspec

from zoo.modalities import MediaBytes
from zoo.sources import Item, Shard


def items_of(shards: Sequence[Shard]) -> list[Item]:
    """The items of all shards, each of which is sent to another process and read there."""
    return [item for shard in shards for item in pickle.loads(pickle.dumps(shard)).items()]


def bytes_of(item: Item) -> bytes | None:
    """The file of an item, if it has no problem."""
    match item.content:
        case MediaBytes(content):
            return content
        case Path() as path:
            return path.read_bytes()
    assert item.content is None and item.problem
    return None


def contents(shards: Sequence[Shard]) -> dict[str, bytes | None]:
    """The files of all items by their keys; None where there is a problem."""
    items = items_of(shards)
    held = {item.key: bytes_of(item) for item in items}
    assert len(held) == len(items), "keys differ"
    return held


def write_files(folder: Path, *names: str) -> Path:
    """Files whose content is their name; `folder` again."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def to_memory(folder: Path) -> str:
    """Copy a folder to `memory://` under its own name, and return its URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder.parent).as_posix()
            fsspec.filesystem("memory").pipe_file(f"/{name}", path.read_bytes())
    return f"memory://{folder.name}"
