"""A corpus's folder: which job it belongs to, which shards are done, and what stands beside them at the end."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import zoo
from zoo.corpus.engines import Named
from zoo.corpus.records import KEPT, CodeCounts, Failure, Record, record_file
from zoo.corpus.rows import Facts
from zoo.corpus.sinks.base import Sink
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path, remove_leftovers
from zoo.sources.items import Shard

FORMAT = "zoo-corpus-1"


class DoneShard(NamedTuple):
    """What `manifest.json` says of a shard."""

    source: str
    items: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """What a corpus holds so far.

    shards: of each one that is done, in order, its name in the source, the number of its items, and its files.
    amount: pixels, seconds or residues of all items. seconds: time of all workers together.
    """

    shards: tuple[DoneShard, ...]
    items: int
    amount: float
    failures: tuple[Failure, ...]
    counts: CodeCounts
    seconds: float


class Job:
    """A folder in which shards are collected until all of a source are there.

    Args:
        folder: made if it does not exist.
        facts, format, options: what makes the corpus; another job in the same folder is an error.
        shards: all of the source.

    Raises:
        InputError: the folder belongs to another job, or the source has changed.
        MediaError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, facts: Facts, format: str, options: dict[str, Any], shards: Sequence[Shard]):
        self.folder, self.facts = folder, facts
        self._shards = {f"tokens-{number:05}": shard for number, shard in enumerate(shards)}
        self._format = format
        records = record_file(folder, "").parent
        try:
            records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be made: {error.strerror or error}") from error
        for place in (folder, folder / KEPT, records):  # of runs that were killed
            remove_leftovers(place)
        digest = hashlib.sha256("\n".join(shard.name for shard in shards).encode()).hexdigest()
        self._claim(
            {
                "corpus": FORMAT,
                "tokenizer": facts.tokenizer,
                "format": format,
                "options": options,
                "weights": facts.weights,
                "shards": len(shards),
                "source": digest,
            }
        )

    def _claim(self, mine: dict[str, Any]) -> None:
        """Write what this job is, or compare it with what the folder belongs to."""
        path = self.folder / KEPT / "job.json"
        if not path.exists():
            if any(record_file(self.folder, "").parent.iterdir()):
                raise MediaError(f"{path}: is missing, but shards of a corpus are there; name another folder")
            with atomic_path(path, overwrite=True) as temporary:  # of two ranks, both write the same
                temporary.write_text(json.dumps(mine, indent=2))
        try:
            theirs = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise MediaError(f"{path}: cannot be read: {error}") from error
        mine = json.loads(json.dumps(mine))
        for key, value in mine.items():
            got = theirs.get(key) if isinstance(theirs, dict) else None
            if got != value:
                what = "the source has changed" if key in ("shards", "source") else f"{key} is {value!r}"
                raise InputError(
                    f"{self.folder}: holds another corpus: {what}, there it was {got!r}; name another folder"
                )

    def todo(self, rank: int = 0, world_size: int = 1) -> list[Named]:
        """The shards that are not done, every `world_size`-th of all."""
        names = list(self._shards)[rank::world_size]
        return [(name, self._shards[name]) for name in names if not record_file(self.folder, name).is_file()]

    def records(self) -> Iterator[Record]:
        """The records of the shards that are done; MediaError for a damaged one."""
        for name in self._shards:
            if record_file(self.folder, name).is_file():
                yield Record.load(record_file(self.folder, name))

    def __len__(self) -> int:
        return len(self._shards)

    def finish(self, sink: Sink, unit: str) -> Totals:
        """Return what is there; if that is all, write `manifest.json` and `failures.jsonl`, and what the sink adds.

        unit: what amounts are counted in.
        """
        totals = summed(self.records(), len(self.facts.codebook_sizes))
        if len(totals.shards) == len(self):
            sink.finish([shard.files for shard in totals.shards])
            lines = "".join(json.dumps(failure._asdict(), ensure_ascii=False) + "\n" for failure in totals.failures)
            with atomic_path(self.folder / "failures.jsonl", overwrite=True) as temporary:
                temporary.write_text(lines)
            manifest = {
                "corpus": FORMAT,
                "tokenizer": self.facts.tokenizer,
                "weights_sha256": self.facts.weights,
                "license": self.facts.license,
                "format": self._format,
                "options": dict(self.facts.options),
                "codebook_sizes": self.facts.codebook_sizes,
                "sample_rate": self.facts.sample_rate,
                "items": totals.items,
                "failures": len(totals.failures),
                unit: round(totals.amount, 3),
                "tokens": totals.counts.tokens,
                "usage": totals.counts.usage(self.facts.codebook_sizes),
                "entropy_bits": totals.counts.entropy(),
                "worker_seconds": round(totals.seconds, 1),
                "versions": {"zoo": zoo.__version__, "torch": torch.__version__, "python": platform.python_version()},
                "shards": [shard._asdict() for shard in totals.shards],
            }
            with atomic_path(self.folder / "manifest.json", overwrite=True) as temporary:
                temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False))
        return totals


def summed(records: Iterable[Record], num_codebooks: int) -> Totals:
    """Return the sums over `records`, of which one at a time is in memory."""
    shards: list[DoneShard] = []
    items, amount, seconds = 0, 0.0, 0.0
    failures: list[Failure] = []
    counts = CodeCounts.empty(num_codebooks)
    for record in records:
        shards.append(DoneShard(record.shard, record.items, record.files))
        items, amount, seconds = items + record.items, amount + record.amount, seconds + record.seconds
        failures += record.failures
        counts.merge(record.counts)
    return Totals(tuple(shards), items, amount, tuple(failures), counts, seconds)
