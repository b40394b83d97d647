"""From a source of media to a corpus of tokens."""

from __future__ import annotations

import os
import reprlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zoo import loading
from zoo.corpus import engines, sinks
from zoo.corpus.engines import Named, Outcome
from zoo.corpus.job import Job, Totals
from zoo.corpus.records import Failure
from zoo.corpus.rows import Facts
from zoo.corpus.work import Plan
from zoo.digest import weights_sha256
from zoo.errors import InputError, ZooError
from zoo.sources import open_source
from zoo.tokenizer import Tokenizer


class Progress(NamedTuple):
    """How far a run is.

    shards: those that are done, of `all_shards`. items, failures, amount, tokens: of this run. seconds: since it began.
    seconds_left: at the pace so far.
    """

    shards: int
    all_shards: int
    items: int
    failures: int
    amount: float
    tokens: int
    seconds: float
    seconds_left: float


class ShardFailure(NamedTuple):
    """A shard that could not be done, and why; the same call tries it again."""

    shard: str
    error: ZooError


@dataclass(frozen=True)
class CorpusResult:
    """What a run leaves.

    folder: where the corpus is. is_complete: whether all shards of the source are done, by this run or others, so that
    `manifest.json` is there. shards: those that are done. items, tokens, amount: in them; `amount_unit` is pixels,
    seconds or residues. failures: items that were left out. failed_shards: shards of this run that could not be done.
    usage, entropy: for each codebook, the share of its entries that occurred, and bits per token.
    """

    folder: Path
    is_complete: bool
    shards: int
    items: int
    tokens: int
    amount: float
    amount_unit: str
    failures: tuple[Failure, ...]
    failed_shards: tuple[ShardFailure, ...]
    usage: list[float]
    entropy: list[float]


def tokenize(
    tokenizer: str | Path,
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str = "parquet",
    pattern: str | None = None,
    markers: Sequence[str] | None = None,
    offset: int | None = None,
    media: bool | None = None,
    push_to: str | None = None,
    weights: str | Path | None = None,
    resolution: int | None = None,
    crop: int | None = None,
    start: float | None = None,
    seconds: float | None = None,
    resample: bool | None = None,
    chain: str | None = None,
    num_codebooks: int | None = None,
    num_tokens: int | None = None,
    num_scales: int | None = None,
    chunk_seconds: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: bool = False,
    engine: str = "local",
    workers: int | None = None,
    readers: int = 1,
    max_batch: int | None = None,
    items_per_shard: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    strict: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> CorpusResult:
    """Tokenize a source of media into a folder of tokens, shard by shard. The codes of an item are those it has alone.

    Each shard is written under a temporary name, renamed and recorded, so that a run that was stopped or killed goes on
    with the shards that are missing when it is called again. A damaged item is left out and named. When the last shard
    is done, `manifest.json` has counts and the use of each codebook, and `failures.jsonl` a line for each item that was
    left out.

    Args:
        tokenizer: name, as `zoo.load` takes it.
        source: folder of media files, WebDataset shards, table, manifest or code files, as `zoo.sources.open_source`
            takes it; several folders and files are one source.
        out: folder of the corpus.
        format: format of the corpus, one of `zoo.corpus.sinks.FORMATS`.
        pattern, markers, offset: ids of the format "megatron", as `zoo.codes.Pattern` takes them.
        media: whether the format "webdataset" keeps each item's file beside its codes.
        push_to: repository `owner/name` of the Hub that gets the finished folder of the format "huggingface".
        weights: as in `zoo.load`.
        resolution, crop, start, seconds, resample, chain: as in `Tokenizer.preprocess`. An item of a manifest that has
            a start or a length has its own instead.
        num_codebooks, num_tokens, num_scales, chunk_seconds: as in `Tokenizer.encode`.
        device: where networks run. "cuda" stands for all GPUs of this machine, one a worker.
        dtype: data type of the weights.
        compile: as in `zoo.load`.
        engine: "local", processes of this machine, or "ray", actors of Ray Data on this machine or on the cluster of
            the environment variable RAY_ADDRESS.
        workers: number of processes or actors; None: one, or one a GPU.
        readers: threads of each worker that read files ahead; 0: none.
        max_batch: samples, pixels or residues that are encoded at once; None: `Modality.batch_size`.
        items_per_shard: of a source without shards of its own; None: 64 shards of between 16 and 1,000 items.
        rank, world_size: do the shards `rank`, `rank + world_size`, ... alone; other processes do the others.
        strict: whether a damaged item is an error of its shard, which is then not written.
        progress: called after each shard.

    Raises:
        InputError: an option that does not apply, a folder that holds another corpus, or a tokenizer whose codes need a
            codebook of their signal's own.
        MediaError: a source that is not there, or a folder that cannot be written.
        PublishError: a finished folder that cannot be pushed.
        ZooError: processes that were killed again and again, or a package that is missing.
    """
    for name, value, least in (("readers", readers, 0), ("rank", rank, 0), ("world_size", world_size, 1)):
        check_number(name, value, least)
    for name, number in (("workers", workers), ("max_batch", max_batch)):
        if number is not None:
            check_number(name, number, 1)
    if rank >= world_size:
        raise InputError(f"expected rank below world_size, {world_size}, got {rank}")
    if push_to is not None and format != "huggingface":
        raise InputError(f"expected push_to with format='huggingface', got it with {format!r}")
    run = engines.get(engine)
    network = loading.load(tokenizer, weights=weights, dtype=dtype, compile=compile)
    network.check_stands_alone()
    excerpt = {"start": start, "seconds": seconds}
    given = {"resolution": resolution, "crop": crop, **excerpt, "resample": resample, "chain": chain}
    given = {name: value for name, value in given.items() if value is not None}
    encode_options: dict[str, Any] = network.partial_options(
        num_codebooks=num_codebooks, num_tokens=num_tokens, num_scales=num_scales
    )
    if chunk_seconds is not None:
        if "chunk_seconds" not in network.encode_options:
            raise InputError(f"{network.spec.name} has no option 'chunk_seconds'; its encoder takes a signal whole")
        encode_options["chunk_seconds"] = chunk_seconds
    network.file_options(**given)
    of_format = {"pattern": pattern, "markers": markers, "offset": offset, "media": media}
    facts = facts_of(network, {**given, **encode_options})
    workers = workers or len(engines.devices_of(device))
    plan = Plan(
        name=str(tokenizer),
        weights_file=None if weights is None else Path(weights),
        facts=facts,
        folder=Path(out),
        format=format,
        sink_options={name: value for name, value in of_format.items() if value is not None},
        given=given,
        encode_options=encode_options,
        dtype=dtype,
        is_compiled=compile,
        most=max_batch or network.modality.batch_size,
        readers=readers,
        threads=None if workers == 1 else max(1, (os.cpu_count() or 1) // workers),
        strict=strict,
    )
    sink = sinks.create(format, plan.folder, facts, **plan.sink_options)
    sink.remove_leftovers()
    options = {**facts.options, **plan.sink_options, "dtype": str(network.dtype), "compile": compile}
    shards = open_source(source, facts.modality, items_per_shard=items_per_shard)
    job = Job(plan.folder, facts, format, options, shards)
    unit = network.modality.amount_unit
    failed = []
    pace = Pace(job.todo(rank, world_size), len(job), len(job) - len(job.todo()), progress)
    outcomes = run(plan, pace.todo, workers, device, network) if pace.todo else ()
    del network  # engines keep it or let it go
    for one in outcomes:
        if one.error is not None:
            failed.append(ShardFailure(one.shard, one.error))
        pace.add(one)
    totals = job.finish(sink, unit)
    result = result_of(job, totals, unit, tuple(failed))
    if push_to is not None and result.is_complete:
        sinks.push_to_hub(plan.folder, push_to)
    return result


class Pace:
    """Adds up what a run has done, and tells `progress` after each shard.

    todo: the shards of the run. done: number of shards that were done before it, of `all_shards`.
    """

    def __init__(self, todo: Sequence[Named], all_shards: int, done: int, progress: Callable[[Progress], None] | None):
        self.todo, self._all_shards, self._done, self._progress = todo, all_shards, done, progress
        self._outcomes = self._items = self._failures = self._tokens = 0
        self._amount, self._start = 0.0, time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self._outcomes += 1
        if outcome.record is not None:
            self._done += 1
            self._items += outcome.record.items
            self._failures += len(outcome.record.failures)
            self._amount += outcome.record.amount
            self._tokens += outcome.record.counts.tokens
        if self._progress is not None:
            seconds = time.monotonic() - self._start
            left = (len(self.todo) - self._outcomes) * seconds / self._outcomes
            counts = (self._items, self._failures, self._amount, self._tokens)
            self._progress(Progress(self._done, self._all_shards, *counts, seconds, left))


def check_number(name: str, value: Any, least: int) -> None:
    """Raise InputError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"expected {name} as an integer of at least {least}, got {reprlib.repr(value)}")


def facts_of(network: Tokenizer, options: dict[str, Any]) -> Facts:
    """What is true of all codes that `network` gives with `options`."""
    spec = network.spec
    codebooks = options.get("num_codebooks", len(spec.default_sizes)) if spec.residual else spec.num_codebooks
    return Facts(
        tokenizer=spec.name,
        weights=weights_sha256(network),
        modality=spec.modality,
        codebook_sizes=tuple(spec.codebook_sizes[:codebooks]),
        sample_rate=spec.sample_rate,
        license=spec.weights_license,
        options=options,
    )


def result_of(job: Job, totals: Totals, unit: str, failed: tuple[ShardFailure, ...]) -> CorpusResult:
    return CorpusResult(
        folder=job.folder,
        is_complete=len(totals.shards) == len(job),
        shards=len(totals.shards),
        items=totals.items,
        tokens=totals.counts.tokens,
        amount=totals.amount,
        amount_unit=unit,
        failures=totals.failures,
        failed_shards=failed,
        usage=totals.counts.usage(job.facts.codebook_sizes),
        entropy=totals.counts.entropy(),
    )
