"""What is kept of every shard that is done: counts, failures, and how often each code occurred."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from zoo.errors import MediaError
from zoo.files import atomic_path

KEPT = ".zoo"  # folder of the job and its records; hidden, so that readers of data sets skip it


def record_file(folder: Path, name: str) -> Path:
    """Path of the record of the shard whose files' names begin with `name`."""
    return folder / KEPT / "shards" / f"{name}.npz"


class Failure(NamedTuple):
    """An item that was left out, and why."""

    source: str
    key: str
    error: str


class CodeCounts:
    """How often each code of each codebook occurred, in memory within the number of different ones.

    values, counts: one sorted int64 array for each codebook, of the codes that occurred and of their numbers.
    """

    def __init__(self, values: list[np.ndarray], counts: list[np.ndarray]):
        self.values, self.counts = values, counts

    @classmethod
    def empty(cls, num_codebooks: int) -> CodeCounts:
        return cls(*([np.zeros(0, np.int64) for _ in range(num_codebooks)] for _ in range(2)))

    @property
    def tokens(self) -> int:
        return sum(int(counts.sum()) for counts in self.counts)

    def add(self, codes: Tensor) -> None:
        """Count codes `[num_codebooks, *grid]`."""
        for codebook, row in enumerate(codes.flatten(1).numpy()):
            self._merge(codebook, *np.unique(row, return_counts=True))

    def merge(self, other: CodeCounts) -> None:
        for codebook, (values, counts) in enumerate(zip(other.values, other.counts, strict=True)):
            self._merge(codebook, values, counts)

    def _merge(self, codebook: int, values: np.ndarray, counts: np.ndarray) -> None:
        merged, where = np.unique(np.concatenate([self.values[codebook], values]), return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, where, np.concatenate([self.counts[codebook], counts]))
        self.values[codebook], self.counts[codebook] = merged, total

    def usage(self, codebook_sizes: Iterable[int]) -> list[float]:
        """For each codebook, the share of its entries that occurred."""
        return [len(values) / size for values, size in zip(self.values, codebook_sizes, strict=True)]

    def entropy(self) -> list[float]:
        """For each codebook, bits per token, without regard to the tokens before it; 0 where there are none."""
        return [entropy(counts) for counts in self.counts]


def entropy(counts: np.ndarray) -> float:
    total = int(counts.sum())
    if total == 0:
        return 0.0
    shares = counts / total
    return float(-(shares * np.log2(shares)).sum()) + 0.0


@dataclass(frozen=True)
class Record:
    """What was done of one shard.

    name: the beginning of its files' names. shard: its name in the source. files: relative to the corpus's folder.
    items: those that were written. amount: their pixels, seconds or residues. seconds: time that it took.
    """

    name: str
    shard: str
    files: tuple[str, ...]
    items: int
    amount: float
    failures: tuple[Failure, ...]
    counts: CodeCounts
    seconds: float

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all, in place of an older one."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "counts"}
        arrays = {f"values_{n}": values for n, values in enumerate(self.counts.values)}
        arrays |= {f"counts_{n}": counts for n, counts in enumerate(self.counts.counts)}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, record=np.array(json.dumps(fields)), **arrays)
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote; MediaError for a file that is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                fields = json.loads(str(file["record"]))
                codebooks = range(sum(name.startswith("values_") for name in file.files))
                counts = CodeCounts(*([file[f"{kind}_{n}"] for n in codebooks] for kind in ("values", "counts")))
            fields["failures"] = tuple(Failure(*failure) for failure in fields["failures"])
            fields["files"] = tuple(fields["files"])
            return cls(**fields, counts=counts)
        except Exception as error:  # a damaged file makes NumPy and JSON raise nearly anything
            raise MediaError(f"{path}: not the record of a shard, or a damaged one: {error}") from error
