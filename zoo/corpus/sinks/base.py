"""The interface of all sinks."""

from __future__ import annotations

import dataclasses
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

from zoo.codes.checks import check_codes, check_frame_rate, check_pixel_aspect, check_size, check_sizes
from zoo.corpus.rows import Facts, Row, StoredRow
from zoo.errors import InputError, MediaError
from zoo.files import remove_leftovers

SHARD_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


class Sink(ABC):
    """Writes the shards of a corpus in one format. It can be pickled; each worker has its own.

    The same rows give the same bytes, whenever and wherever they are written.

    Attributes:
        format: the name of the format.
        pattern: pattern of the file of each shard that `read_shard` takes.
    """

    format: ClassVar[str]
    pattern: ClassVar[str]

    def __init__(self, folder: Path, facts: Facts):
        check_sizes(facts.codebook_sizes)
        self.folder, self.facts = folder, facts

    @abstractmethod
    def files(self, shard: str) -> tuple[str, ...]:
        """Return the paths of the files of a shard, relative to the folder, in the order in which they are completed.

        A shard of very many files is a folder, and its path is that of the folder.
        """

    @abstractmethod
    def write_rows(self, paths: Sequence[Path], rows: Iterable[Row]) -> None:
        """Write at least one row, each checked, to the `files` of a shard, as `write` says."""

    @staticmethod
    @abstractmethod
    def read_shard(path: Path) -> Iterator[StoredRow]:
        """Yield the rows of a shard in their order, without the media; any exception for a damaged file."""

    def write(self, shard: str, rows: Iterable[Row]) -> tuple[str, ...]:
        """Write one shard, each of its files whole or not at all, replacing what is there.

        Rows are made while they are written, and are not kept in memory: a shard may hold hours of sound. An error of
        `rows` leaves the folder as it was. A shard without rows has no files.

        Args:
            shard: name of the shard, which is in the names of its files: letters, digits, `.`, `-` and `_`.
            rows: the items of the shard.

        Returns:
            Paths as `files` returns them; () for a shard without rows.

        Raises:
            InputError: another name, or a row with codes beyond the codebooks, of another number of codebooks, or with
                a size, frame rate or pixel aspect that no signal has.
            MediaError: a file that cannot be written.
        """
        if not SHARD_NAME.fullmatch(shard):
            raise InputError(f"expected the name of a shard as letters, digits, '.', '-' and '_', got {shard!r}")
        files = self.files(shard)
        paths = [self.folder / file for file in files]
        checked = self._checked(rows)
        first = list(islice(checked, 1))
        if not first:
            _remove(paths)
            return ()
        for parent in {path.parent for path in paths}:
            _make(parent)
        self.write_rows(paths, _chained(first, checked))
        return files

    def finish(self, files: Sequence[tuple[str, ...]]) -> None:
        """Write what stands once for all shards; called when all are done, perhaps twice.

        Args:
            files: what `write` returned for each shard, in the order of the shards.

        Raises:
            MediaError: a file that cannot be written or read.
        """
        _make(self.folder)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed have left, and nothing that is still being written.

        To be called once for a run, before its workers write; `finish` does it as well.
        """
        for folder in {(self.folder / file).parent for file in self.files("shard")}:
            remove_leftovers(folder)

    def _checked(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            try:
                codes = check_codes(row.codes[None], self.facts.codebook_sizes)
                check_size(row.size, codes)
                if row.frame_rate is not None:
                    check_frame_rate(row.frame_rate)
                if row.pixel_aspect is not None:
                    check_pixel_aspect(row.pixel_aspect)
            except InputError as error:
                raise InputError(f"{row.id}: {error}") from error
            yield dataclasses.replace(row, codes=codes[0].cpu())


def _chained(first: list[Row], others: Iterator[Row]) -> Iterator[Row]:
    yield first.pop()  # and is not held here
    yield from others


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise MediaError(f"{path}: cannot be removed: {error.strerror or error}") from error
