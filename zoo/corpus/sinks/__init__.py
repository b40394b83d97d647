"""Formats in which a corpus is written, one file each."""

from __future__ import annotations

import inspect
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.arguments import check_types, hints_of
from zoo.corpus.records import Record, record_file
from zoo.corpus.rows import Facts, StoredRow
from zoo.corpus.sinks.base import Sink
from zoo.corpus.sinks.huggingface import HuggingFaceSink, push_to_hub
from zoo.corpus.sinks.megatron import MegatronSink
from zoo.corpus.sinks.npz import NpzSink
from zoo.corpus.sinks.parquet import ParquetSink
from zoo.corpus.sinks.webdataset import WebDatasetSink
from zoo.errors import InputError, MediaError

SINKS: dict[str, type[Sink]] = {
    sink.format: sink for sink in (ParquetSink, MegatronSink, WebDatasetSink, NpzSink, HuggingFaceSink)
}
FORMATS = tuple(SINKS)

__all__ = ["FORMATS", "Sink", "create", "options_of", "push_to_hub", "read"]


def create(format: str, folder: str | os.PathLike[str], facts: Facts, **options: Any) -> Sink:
    """Return the sink of a format.

    Args:
        format: one of `FORMATS`.
        folder: folder of the corpus; it is made when the first shard is written.
        facts: what is true of all items.
        options: of the format: `pattern`, `markers` and `offset` of "megatron", `media` of "webdataset".

    Raises:
        InputError: an unknown format, an option that it does not have or that is of another type, a package that is
            missing, or what the format's class says.
    """
    if format not in FORMATS:
        raise InputError(f"expected format as one of {', '.join(FORMATS)}, got {reprlib.repr(format)}")
    sink = SINKS[format]
    known = options_of(format)
    for name in options:
        if name not in known:
            others = [other for other in FORMATS if name in options_of(other)]
            whose = f"{name!r}, which is an option of {' and '.join(others)}" if others else repr(name)
            takes = f"the options {', '.join(known)}" if known else "no options"
            raise InputError(f"the format {format} takes {takes}, got {whose}")
    check_types(options, hints_of(sink.__init__), {"offset": 0}, f"format {format}")
    return sink(Path(folder), facts, **options)


def options_of(format: str) -> tuple[str, ...]:
    """Return the names of the options of a format."""
    parameters = inspect.signature(SINKS[format].__init__).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def read(folder: str | os.PathLike[str]) -> Iterator[StoredRow]:
    """Yield the rows of a corpus in any format, shard by shard in the order of their names, without the media.

    Raises:
        MediaError: a folder without a corpus, or a damaged file, also one that has lost items.
    """
    for sink in SINKS.values():
        if paths := sorted(Path(folder).glob(sink.pattern)):
            return _rows(Path(folder), sink, paths)
    raise MediaError(f"{folder}: holds no corpus ({', '.join(sink.pattern for sink in SINKS.values())})")


def _rows(folder: Path, sink: type[Sink], paths: list[Path]) -> Iterator[StoredRow]:
    kept = [Record.load(path) for path in sorted(record_file(folder, "*").parent.glob("*.npz"))]  # if they came along
    written = {folder / file: record.items for record in kept for file in record.files}
    for path in paths:
        count, expected = 0, written.get(path, written.get(path.parent))
        try:
            for row in sink.read_shard(path):
                count += 1
                yield row
            if expected not in (None, count):
                raise InputError(f"{count} items, of {expected} that were written")
        except Exception as error:  # a damaged file makes the readers raise nearly anything
            reason = str(error) or type(error).__name__
            raise MediaError(f"{path}: not a shard of a corpus, or a damaged one: {reason}") from error
