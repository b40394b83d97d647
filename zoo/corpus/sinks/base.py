"""The interface of all sinks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from zoo.corpus.rows import Facts, Row


class Sink(ABC):
    """Writes the shards of a corpus in one format. It can be pickled; each worker has its own.

    The same rows give the same bytes, whenever and wherever they are written.

    Attributes:
        format: the name of the format.
    """

    format: ClassVar[str]

    def __init__(self, folder: Path, facts: Facts):
        self.folder, self.facts = folder, facts

    @abstractmethod
    def write(self, shard: str, rows: Iterable[Row]) -> tuple[str, ...]:
        """Write one shard in files whose names begin with `shard`, each whole or not at all, replacing what is there.

        Rows are made while they are written, and are not kept in memory: a shard may hold hours of sound. An error of
        `rows` leaves no file. A shard without rows gives the files of an empty one, or none.

        Returns:
            Paths of the files, relative to the folder, in the order in which they were written.

        Raises:
            MediaError: a file that cannot be written.
        """

    def finish(self, files: Sequence[tuple[str, ...]]) -> None:  # noqa: B027 - most formats need nothing
        """Write what stands once for all shards, given the files of each; called when all are done, perhaps twice."""
