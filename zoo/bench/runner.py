"""The benchmark: every candidate encodes and decodes a folder of files, except for what is in the cache already.

Files and candidates are taken one by one and no signal is kept in memory, so that memory does not grow with them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.bench import protocols
from zoo.bench.baselines import classical_codecs
from zoo.bench.cache import Entry, content_key, make_folder
from zoo.bench.candidates import Candidate, TokenizerCandidate
from zoo.bench.choices import available_metrics, chosen_preprocessing, chosen_tokenizers, spec_of, wanted_metrics
from zoo.bench.codes import code_figures
from zoo.bench.comparisons import compare
from zoo.bench.data import DataFile, DataFolder, folder_of, portable
from zoo.bench.machine import machine_facts, versions
from zoo.bench.measuring import Measurements, metric_facts
from zoo.bench.own import named_metrics, own_candidates
from zoo.bench.report import write_report
from zoo.bench.results import Interval, Item, Point, Results
from zoo.bench.timing import CodecFailure, FileFailure, Outcome, TimedCandidate
from zoo.errors import InputError, MediaError, as_zoo_error
from zoo.metrics import Metric
from zoo.modalities import Signal


class Benchmark:
    """`bench` in two steps, so that it is known what is not available before `run` starts.

    Attributes:
        left_out: metrics and candidates that are not available, by their label, each with the reason; and, as
            "METRIC of CANDIDATE", figures of the whole set that cannot be computed.
        damaged: files that cannot be used, by their path relative to the data folder, each with the reason; `run` adds
            those that it finds.

    Args, Raises:
        As `bench`.
    """

    def __init__(
        self,
        names: Sequence[str | Path],
        data: str | Path,
        *,
        candidates: Sequence[str | Candidate] = (),
        protocol: str | None = None,
        out: str | Path = "zoo-bench",
        cache: str | Path | None = None,
        metrics: Sequence[str] | None = None,
        own_metrics: Sequence[str | Metric] = (),
        limit: int | None = None,
        baselines: bool = True,
        resolution: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        device: str = "cpu",
        examples: bool = True,
        num_codebooks: Sequence[int] | None = None,
    ):
        if limit is not None and limit < 1:
            raise InputError(f"expected a limit of at least 1 file, got {limit}")
        if not names and not candidates:
            raise InputError("expected the name of at least one tokenizer, or a candidate of your own")
        self._portable = functools.partial(portable, folder=folder_of(Path(data)))
        self.out, self.seed, self.device, self.examples = Path(out), seed, device, examples
        self.cache = Path(cache) if cache is not None else self.out / "cache"
        own = own_candidates(candidates)
        tokenizers, self.left_out = chosen_tokenizers(names, device, num_codebooks, self._portable)
        self.variants = {method: lazy.facts() for method, lazy in tokenizers.items()}
        specs = [lazy.spec for lazy in tokenizers.values()] + [spec_of(candidate) for candidate in own]
        self.protocol = None if protocol is None else protocols.load(protocol)
        self.preprocessing = chosen_preprocessing(specs, self.protocol, {"resolution": resolution, "seconds": seconds})
        mine = named_metrics(own_metrics)
        wanted = wanted_metrics(self.preprocessing.modality, metrics, mine, self.protocol)
        self.metrics, reasons = available_metrics(wanted, self._portable)
        self.left_out |= reasons
        self.candidates: list[Candidate] = [
            *(
                TokenizerCandidate(method, lazy, setting, seed)
                for method, lazy in tokenizers.items()
                for setting in lazy.settings
            ),
            *own,
        ]
        if baselines:
            codecs, reasons = classical_codecs(self.preprocessing)
            self.candidates += codecs
            self.left_out |= reasons
        check_labels(self.candidates)
        self.data = DataFolder(Path(data), self.preprocessing, limit)
        self.damaged: dict[str, str] = {}
        self._measurements = Measurements(self.metrics, mine, self.data, seed)

    def __len__(self) -> int:
        """Return the number of steps of `run`: each file is encoded by each candidate, then measured."""
        return 2 * len(self.candidates) * len(self.data.paths)

    def run(self, advance: Callable[[], None] = lambda: None) -> Results:
        """Do the work, write `results.json`, `items.jsonl` and `report.html`, and return the results.

        Args:
            advance: called after each step.

        Raises:
            MediaError: no file can be read, or the folder of the results cannot be written.
        """
        make_folder(self.cache)
        files, damaged, excluded = self.data.files()
        self.damaged |= {source: self._portable(reason) for source, reason in damaged.items()}
        for candidate in self.candidates:
            self._encode(candidate, files, advance)
            candidate.release()
        measured = {file.source: self._measure(file, advance) for file in files}
        good = [file for file in files if file.source not in self.damaged]
        if not good:
            raise MediaError(
                f"{self.data.folder}: none of its files can be used: {next(iter((self.damaged | excluded).values()))}"
            )
        points = [
            self._point(candidate, good, [measured[file.source][candidate.label] for file in good])
            for candidate in self.candidates
            if candidate.label not in self.left_out
        ]
        facts = {name: metric_facts(metric) for name, metric in self.metrics.items()}
        results = Results(
            modality=self.preprocessing.modality,
            rate_unit=self.preprocessing.kind.rate_unit,
            metrics=facts,
            points=points,
            left_out=self.left_out,
            damaged=self.damaged,
            excluded=excluded,
            data=self.data.facts(good),
            machine=machine_facts(self.device),
            versions=versions(),
            seeds={"bootstrap": self.seed, "generator": self.seed},
            comparisons=compare(points, facts),
            variants=self.variants,
            protocol={} if self.protocol is None else self.protocol.facts(len(self.data.paths)),
        )
        results.save(self.out / "results.json")
        write_report(results, self.out, self.out / "report.html", data=self.data.folder if self.examples else None)
        return results

    # Each candidate and file

    def _encode(self, candidate: Candidate, files: Sequence[DataFile], advance: Callable[[], None]) -> None:
        """Send all files through one candidate, so that only one candidate is in memory at a time.

        A file that fails is noted; a codec that fails is left out.
        """
        timed = TimedCandidate(candidate, self.preprocessing, self.device)
        for file in files:
            entry = self._entry(candidate, file)
            if file.source in self.damaged or candidate.label in self.left_out or entry.read_item() is not None:
                advance()
                continue
            try:
                signal = self._load(file)
                self._keep(candidate, entry, signal, timed(signal))
            except FileFailure as error:
                self.damaged[file.source] = self._portable(str(error))
            except CodecFailure as error:
                self.left_out[candidate.label] = self._portable(f"failed on {file.source}: {error}")
            advance()

    def _measure(self, file: DataFile, advance: Callable[[], None]) -> dict[str, dict[str, Any]]:
        """Return the records of a file by candidate, with every figure that is wanted.

        Files are taken one by one, so that each original is read once, and so that what a metric computes from an
        original serves all candidates.
        """
        signal = functools.cache(functools.partial(self._load, file))
        records: dict[str, dict[str, Any]] = {}
        for candidate in self.candidates:
            if file.source not in self.damaged and candidate.label not in self.left_out:
                entry = self._entry(candidate, file)
                record = entry.read_item()
                assert record is not None  # `_encode` has written it
                try:
                    self._measurements.add(record, entry, signal)
                    records[candidate.label] = record
                except FileFailure as error:
                    self.damaged[file.source] = self._portable(str(error))
            advance()
        return records

    def _entry(self, candidate: Candidate, file: DataFile) -> Entry:
        return self._entry_of(file.key, candidate)

    def _entry_of(self, content: Any, candidate: Candidate) -> Entry:
        """Return where the result of a candidate for a content is kept."""
        key = content_key(content, asdict(self.preprocessing), candidate.label, candidate.identity())
        return Entry(self.cache, key, self.preprocessing.kind.lossless_suffix)

    def _load(self, file: DataFile) -> Signal:
        try:
            return self.data.load(file)
        except Exception as error:
            raise FileFailure(str(as_zoo_error(error))) from error

    def _keep(self, candidate: Candidate, entry: Entry, signal: Signal, outcome: Outcome) -> None:
        """Write codes, reconstruction and what is known so far."""
        make_folder(entry.reconstruction.parent)
        if isinstance(candidate, TokenizerCandidate):
            entry.write_codes(outcome.payload, candidate)
        try:
            self.preprocessing.write(entry.reconstruction, outcome.reconstruction)
        except MediaError:  # the cache cannot be written, whatever the file
            raise
        except Exception as error:
            raise FileFailure(f"{candidate.label}: cannot be kept: {as_zoo_error(error)}") from error
        entry.write(
            {
                "bytes": outcome.bytes,
                "amount": self.preprocessing.amount(signal),
                "encode_seconds": outcome.encode_seconds,
                "decode_seconds": outcome.decode_seconds,
                "peak_bytes": outcome.peak_bytes,
                "has_codes": isinstance(candidate, TokenizerCandidate),
                "metrics": {},
            }
        )

    # Points

    def _point(self, candidate: Candidate, files: Sequence[DataFile], records: Sequence[dict[str, Any]]) -> Point:
        """Sum up a candidate's records, one for each file."""
        amount = sum(record["amount"] for record in records)
        num_bytes = sum(record["bytes"] for record in records)
        entries = [self._entry(candidate, file) for file in files]
        items = [self._item(*one) for one in zip(files, records, entries, strict=True)]
        return Point(
            label=candidate.label,
            method=candidate.method,
            baseline=candidate.baseline,
            setting=candidate.setting,
            identity=candidate.identity(),
            bytes=num_bytes / len(records),
            rate=self.preprocessing.rate(num_bytes, amount),
            metrics={
                name: self._measurements.mean(name, [item.metrics[name] for item in items])
                if metric.per_item is not None
                else self._figure_of_set(name, metric, candidate, files, entries)
                for name, metric in self.metrics.items()
            },
            encode_speed=self.preprocessing.speed(amount, sum(record["encode_seconds"] for record in records)),
            decode_speed=self.preprocessing.speed(amount, sum(record["decode_seconds"] for record in records)),
            peak_bytes=max(record["peak_bytes"] for record in records),
            codes=code_figures(candidate.sizes, entries) if isinstance(candidate, TokenizerCandidate) else None,
            note=candidate.note,
            items=items,
        )

    def _item(self, file: DataFile, record: dict[str, Any], entry: Entry) -> Item:
        return Item(
            source=file.source,
            bytes=record["bytes"],
            encode_seconds=record["encode_seconds"],
            decode_seconds=record["decode_seconds"],
            metrics=self._measurements.figures(record),
            reconstruction=Path(os.path.relpath(entry.reconstruction, self.out)).as_posix(),
        )

    def _figure_of_set(
        self, name: str, metric: Metric, candidate: Candidate, files: Sequence[DataFile], entries: Sequence[Entry]
    ) -> Interval:
        kept = self._entry_of([self._measurements.key(name), *(file.key for file in files)], candidate)
        try:
            return self._measurements.of_set(name, files, entries, kept)
        except Exception as error:
            reason = f"cannot be computed: {as_zoo_error(error)}"
            self.left_out[f"{metric.label} of {candidate.label}"] = self._portable(reason)
            return Interval(value=None)


def bench(
    names: Sequence[str | Path],
    data: str | Path,
    *,
    candidates: Sequence[str | Candidate] = (),
    protocol: str | None = None,
    out: str | Path = "zoo-bench",
    cache: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    own_metrics: Sequence[str | Metric] = (),
    limit: int | None = None,
    baselines: bool = True,
    resolution: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    examples: bool = True,
    num_codebooks: Sequence[int] | None = None,
) -> Results:
    """Measure tokenizers, candidates of one's own and classical codecs on a folder of files.

    Writes `results.json`, `items.jsonl`, `report.html` and, in `cache`, every reconstruction. What is in the cache is
    not encoded again, so that an interrupted run continues where it was.

    Args:
        names: variants of one modality, as `zoo.load` takes them; each at every rate that it supports. None are needed
            beside `candidates`.
        data: folder whose files of the modality are taken, with its subfolders; or one file.
        candidates: candidates of one's own: `Candidate` objects, or names `package.module:name` of one, of a subclass
            that takes no arguments, or of a function that returns several.
        protocol: name of a published evaluation, in `zoo.bench.protocols.names()`, which sets the preprocessing and the
            metrics; its sources and differences are in the results.
        out: folder for the results; default: `zoo-bench`.
        cache: folder for the cache; default: `cache` in `out`.
        metrics: names in `zoo.metrics.METRICS`; default: those of the protocol, or all.
        own_metrics: metrics of one's own beside them: `zoo.metrics.Metric` objects, or names `package.module:name`.
        limit: number of files, the first by name; default: all.
        baselines: whether the classical codecs are run as well.
        resolution: side in pixels of the square that images and video are resized and cropped to (short side resized,
            centre kept); default: as the files have it, or the only size that a variant takes.
        seconds: length of audio and video that is taken from the start; default: all.
        seed: random seed of the intervals, and of decoders that sample.
        device: where the tokenizers run; the metrics run on the CPU.
        examples: whether the report shows originals and reconstructions.
        num_codebooks: numbers of codebooks at which residual tokenizers are measured; default: 1, 2, 4, ... and all.

    Raises:
        InputError: candidates that cannot be compared, an unknown metric, an option that they do not take, or a name
            that is not one of a candidate or a metric.
        MediaError: no such folder, no file of the modality in it, or none that can be read.
        As `zoo.load`, if no tokenizer is available; if only some are not, they are left out.
    """
    return Benchmark(
        names,
        data,
        candidates=candidates,
        protocol=protocol,
        out=out,
        cache=cache,
        metrics=metrics,
        own_metrics=own_metrics,
        limit=limit,
        baselines=baselines,
        resolution=resolution,
        seconds=seconds,
        seed=seed,
        device=device,
        examples=examples,
        num_codebooks=num_codebooks,
    ).run()


def check_labels(candidates: Sequence[Candidate]) -> None:
    """Raise InputError for two candidates that are called the same."""
    labels = [candidate.label for candidate in candidates]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"two candidates are called {twice!r}; give yours another method or setting")
