"""What a source consists of: shards, which are the units of work, and the items in them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.codes import CodeFile
from zoo.modalities import MediaBytes


@dataclass(frozen=True)
class Item:
    """One signal of a source; `source` and `key` together are its id.

    source: the folder, shard, table or manifest, as it was named. key: what stands for the item in it, such as a path
        relative to the folder; no two items of a source share one.
    content: what `Modality.load` takes, or the codes where the source holds code files; None: there is a `problem`.
    modality: the kind of signal.
    options: options of `Modality.load` that this item has of its own, such as the start of an excerpt.
    problem: why there is nothing to read.
    """

    source: str
    key: str
    content: Path | MediaBytes | CodeFile | None
    modality: str
    options: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


class Shard(Protocol):
    """A part of a source that one worker does from beginning to end; it can be pickled and holds no open file."""

    @property
    def name(self) -> str:
        """A name that stays the same as long as the source does, such as the shard's path or the range of its rows."""

    def items(self) -> Iterator[Item]:
        """Yield the items in an order that depends on the data alone; one that cannot be read has a `problem`."""


def items_in_shard(count: int, wanted: int | None) -> int:
    """Return how many of `count` items a shard has: those wanted; None: as many as make 64 shards, from 16 to 1000."""
    return min(max(math.ceil(count / 64), 16), 1000) if wanted is None else wanted
