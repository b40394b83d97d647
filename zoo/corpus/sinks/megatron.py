"""Megatron-LM's indexed data set: ids of all items in one file, and where each begins in another."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from zoo.codes.patterns import Order, Pattern
from zoo.corpus.rows import Facts, Row, StoredRow
from zoo.corpus.sinks.base import Sink
from zoo.corpus.sinks.records import as_line, read_lines, record, stored_row
from zoo.errors import InputError
from zoo.files import atomic_path

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
HEADER = struct.Struct("<9sQBQQ")  # magic, version, type code, number of sequences, number of document bounds
TYPES: dict[int, np.dtype] = {8: np.dtype("<u2"), 4: np.dtype("<i4")}  # by the type codes of Megatron-LM's `DType`
MOST_SHORT = 65500  # vocabularies below are uint16, as Megatron-LM chooses
DATA_PATH = "data_path.txt"


class MegatronSink(Sink):
    """`SHARD.bin` and `SHARD.idx`, version 1 (megatron/core/datasets/indexed_dataset.py), and `SHARD.jsonl`.

    An item is a document of one sequence: the ids of `zoo.codes.Pattern`. The patterns "parallel" and "delay" have a
    row of ids for each codebook; here they lie step by step, the ids of all codebooks at a step side by side, so that
    `sequence.reshape(-1, num_codebooks)` gives the steps. Ids are uint16 where all are below 65,499, else int32.
    `SHARD.jsonl` has a line for each item: the fields of `records.record`, `order`, `markers` and `offset`.

    `finish` writes `data_path.txt` for `--data-args-path`: each shard's number of ids, as its weight, and its path
    without a suffix. With markers ("end",) and offset 0, the end of a document has the id that Megatron-LM's
    NullTokenizer with `--vocab-size sum(codebook_sizes)` takes for it.

    Args:
        pattern: order of the ids, one of `zoo.codes.patterns.ORDERS`; "frame_first" is `zoo.codes.flatten`.
        markers: as in `Pattern`; with "end", each document ends in an id of its own.
        offset: the first id.

    Raises:
        InputError: a folder whose path has white space, at which Megatron-LM splits paths; ids beyond int32.
    """

    format = "megatron"
    pattern = "[!.]*.idx"

    def __init__(
        self,
        folder: Path,
        facts: Facts,
        *,
        pattern: Order = "frame_first",
        markers: Sequence[str] = (),
        offset: int = 0,
    ):
        self.ids = Pattern(facts.codebook_sizes, pattern, tuple(markers), offset)
        self.vocabulary_size = self.ids.offset + self.ids.vocabulary_size
        if self.vocabulary_size > 2**31:
            raise InputError(f"the format {self.format} takes ids below 2 ** 31, got {self.vocabulary_size} ids")
        if any(character.isspace() for character in str(folder.absolute())):
            raise InputError(f"the format {self.format} takes no folder whose path has white space, got {folder}")
        super().__init__(folder, facts)

    def files(self, shard: str) -> tuple[str, ...]:
        return f"{shard}.jsonl", f"{shard}.bin", f"{shard}.idx"

    def write_rows(self, paths: Sequence[Path], rows: Iterable[Row]) -> None:
        code = 8 if self.vocabulary_size < MOST_SHORT else 4
        lengths = array("i")
        pattern = {"order": self.ids.order, "markers": self.ids.markers, "offset": self.ids.offset}
        lines_path, ids_path, index_path = paths
        with (  # they get their names in the opposite order, the index last
            atomic_path(index_path, overwrite=True) as index,
            atomic_path(ids_path, overwrite=True) as ids,
            atomic_path(lines_path, overwrite=True) as lines,
        ):
            with ids.open("wb") as ids_file, lines.open("wb") as lines_file:
                for row in rows:
                    sequence = self.ids.ids(row.codes[None])[0]
                    sequence = sequence.T.flatten() if sequence.ndim == 2 else sequence  # step by step
                    ids_file.write(sequence.numpy().astype(TYPES[code]).tobytes())
                    lengths.append(len(sequence))
                    lines_file.write(as_line({**record(row, self.facts), **pattern}))
            _write_index(index, code, np.frombuffer(lengths, np.intc))

    def finish(self, files: Sequence[tuple[str, ...]]) -> None:
        super().finish(files)
        with atomic_path(self.folder / DATA_PATH, overwrite=True) as temporary:
            lines = []
            for _, ids, index in filter(None, files):
                size = (self.folder / ids).stat().st_size // _read_header(self.folder / index)[0].itemsize
                lines.append(f"{size} {(self.folder / ids).absolute().with_suffix('')}\n")
            temporary.write_text("".join(lines), encoding="utf-8")

    @staticmethod
    def read_shard(path: Path) -> Iterator[StoredRow]:
        dtype, count = _read_header(path)
        lengths = np.fromfile(path, "<i4", count, offset=HEADER.size)
        with path.with_suffix(".bin").open("rb") as file:
            for length, fields in zip(lengths.tolist(), read_lines(path.with_suffix(".jsonl")), strict=True):
                sequence = torch.from_numpy(np.fromfile(file, dtype, length).astype(np.int64))
                pattern = Pattern(
                    tuple(fields["codebook_sizes"]), fields["order"], tuple(fields["markers"]), fields["offset"]
                )
                if pattern.order in ("parallel", "delay"):
                    sequence = sequence.unflatten(0, (-1, len(pattern.codebook_sizes))).T
                yield stored_row(fields, pattern.codes(sequence[None], fields["grid"])[0])


def _write_index(path: Path, code: int, lengths: np.ndarray) -> None:
    starts = np.zeros(len(lengths), "<i8")
    np.cumsum(lengths[:-1], out=starts[1:])
    with path.open("wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, code, len(lengths), len(lengths) + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((starts * TYPES[code].itemsize).tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())  # the sequence with which each document begins


def _read_header(path: Path) -> tuple[np.dtype, int]:
    """Return the type of the ids and the number of sequences."""
    with path.open("rb") as file:
        magic, version, code, count, _ = HEADER.unpack(file.read(HEADER.size))
    if magic != MAGIC or version != VERSION or code not in TYPES:
        raise InputError(f"expected {MAGIC!r}, version {VERSION} and type 4 or 8, got {magic!r}, {version} and {code}")
    return TYPES[code], count
