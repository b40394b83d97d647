"""What one worker does with a shard: the same in all engines."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import loading
from zoo.codes import CodeFile
from zoo.corpus import sinks
from zoo.corpus.batching import BATCHES_AHEAD, Batches, Encoded
from zoo.corpus.reading import Piece, Readers, pieces
from zoo.corpus.records import CodeCounts, Failure, Record, record_file
from zoo.corpus.rows import Facts, Row
from zoo.digest import weights_sha256
from zoo.errors import InputError, MediaError, as_zoo_error
from zoo.modalities import MediaBytes, Signal
from zoo.sources.items import Item, Shard
from zoo.system_memory import keep_freed_memory
from zoo.tokenizer import Tokenizer


@dataclass(frozen=True)
class Plan:
    """How shards are worked on; it can be pickled.

    name, weights_file: what `zoo.load` takes. facts: what is true of all rows. folder, format, sink_options: where they
    go. given: options of `preprocess`. encode_options: options of `encode`. most: samples, pixels or residues in a
    batch. readers: threads of a worker that read files ahead. threads: threads of a worker that compute; None: as torch
    decides. strict: whether the first damaged item ends its shard with an error.
    """

    name: str
    weights_file: Path | None
    facts: Facts
    folder: Path
    format: str
    sink_options: dict[str, Any]
    given: dict[str, Any]
    encode_options: dict[str, Any]
    dtype: torch.dtype | None
    is_compiled: bool
    most: int
    readers: int
    threads: int | None
    strict: bool


class Worker:
    """A network and a sink, which turn shards into files."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer):
        keep_freed_memory()
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        self.plan = plan
        self.tokenizer = tokenizer
        self._options = self.tokenizer.file_options(**plan.given)
        self._sink = sinks.create(plan.format, plan.folder, plan.facts, **plan.sink_options)
        self._begun: Readers | Generator[Piece] | None = None

    def __call__(self, name: str, shard: Shard, following: Shard | None = None) -> Record:
        """Write the files of a shard under `name`, then its record, and return that.

        following: the shard of the next call, where it is known, which is read ahead as well.

        Raises:
            ZooError: a shard that cannot be read, files that cannot be written, or, if `plan.strict`, a damaged item.
        """
        start = time.perf_counter()
        tally = Tally(self.plan.facts.codebook_sizes)
        batches = Batches(self._codes_of, self.tokenizer.size_of, self.plan.most)
        with closing(self._begun or self._pieces(shard)) as read:
            self._begun = None if following is None else self._pieces(following)
            files = self._sink.write(name, self._rows(batches(read), tally))
        seconds = time.perf_counter() - start
        failures = tuple(tally.failures)
        record = Record(name, shard.name, files, tally.items, tally.amount, failures, tally.counts, seconds)
        record.save(record_file(self.plan.folder, name))
        return record

    def close(self) -> None:
        """End the reading of the shard that follows."""
        if self._begun is not None:
            self._begun.close()

    def _pieces(self, shard: Shard) -> Readers | Generator[Piece]:
        most = BATCHES_AHEAD * self.plan.most  # what the network can wait for
        return pieces(shard.items(), self._read, self.plan.readers, most, self._amount_of)

    def _amount_of(self, signal: Signal) -> int:
        return math.prod(self.tokenizer.size_of(signal.values[None]))

    def _read(self, item: Item) -> Iterator[Signal]:
        if item.problem is not None:
            raise MediaError(item.problem)
        if isinstance(item.content, CodeFile):
            return
        options = {**self._options, **item.options}
        yield from self.tokenizer.modality.stream(item.content, self.tokenizer.spec, **options)

    def _codes_of(self, signals: Tensor) -> Tensor:
        return self.tokenizer.encode(signals.to(self.tokenizer.device), **self.plan.encode_options).cpu()

    def _rows(self, encoded: Iterable[Encoded], tally: Tally) -> Iterator[Row]:
        for one in encoded:
            try:
                row = self._row(one)
            except Exception as error:
                known = as_zoo_error(error)
                if self.plan.strict:
                    raise known from error
                tally.failures.append(Failure(one.item.source, one.item.key, str(known)))
                continue
            tally.add(row, self.tokenizer.modality.amount(row.size, row.frame_rate or self.plan.facts.sample_rate))
            yield row

    def _row(self, encoded: Encoded) -> Row:
        if encoded.error is not None:
            raise encoded.error
        item = encoded.item
        if isinstance(item.content, CodeFile):
            return self._row_of_codes(item, item.content)
        if not encoded.codes:
            raise MediaError(f"{item.key}: holds no {self.tokenizer.spec.modality}")
        codes = torch.cat([codes for codes in encoded.codes if codes is not None], dim=1)
        media = item.content if isinstance(item.content, Path | MediaBytes) else None
        return Row(item.source, item.key, codes, encoded.size, encoded.frame_rate, encoded.pixel_aspect, media)

    def _row_of_codes(self, item: Item, file: CodeFile) -> Row:
        file.check(self.tokenizer.spec)
        if file.codebook_sizes != self.plan.facts.codebook_sizes or len(file.codes) != 1 or file.size is None:
            raise InputError(
                f"{item.key}: expected the codes of one signal and its size, from codebooks of "
                f"{list(self.plan.facts.codebook_sizes)}, got {len(file.codes)} from {list(file.codebook_sizes)}"
            )
        return Row(item.source, item.key, file.codes[0], file.size, file.frame_rate, file.pixel_aspect)


@dataclass
class Tally:
    """What was done of a shard so far."""

    codebook_sizes: Sequence[int]
    items: int = 0
    amount: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    counts: CodeCounts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = CodeCounts.empty(len(self.codebook_sizes))

    def add(self, row: Row, amount: float) -> None:
        self.items += 1
        self.amount += amount
        self.counts.add(row.codes)


def load(plan: Plan, device: str) -> Tokenizer:
    """Load the plan's network; InputError if this machine has other weights than those that the plan is of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever made the plan was told of the license
        tokenizer = loading.load(
            plan.name, weights=plan.weights_file, device=device, dtype=plan.dtype, compile=plan.is_compiled
        )
    found = weights_sha256(tokenizer)
    if found != plan.facts.weights:
        raise InputError(
            f"{plan.name}: the weights on this machine have the hash {found[:16]}, expected {plan.facts.weights[:16]}"
        )
    return tokenizer
