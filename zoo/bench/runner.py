"""The benchmark: a folder of files through every candidate, measured; what is known already comes from a cache.

Files and candidates are taken one by one, and nothing of a signal is kept, so that memory does not grow with them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zoo import media
from zoo.bench.baselines import baselines as classical
from zoo.bench.cache import Entry, content_key, file_sha256, make_folder
from zoo.bench.candidates import Candidate, Source, TokenizerCandidate
from zoo.bench.comparisons import compare
from zoo.bench.machine import PeakMemory, machine, metrics_version, versions
from zoo.bench.results import Interval, Item, Point, Results
from zoo.bench.signals import RATE_UNIT, Preprocessing, Signal
from zoo.bench.statistics import bootstrap_interval, jackknife_interval
from zoo.errors import InputError, MediaError, UnknownTokenizerError, ZooError
from zoo.metrics import METRICS, Metric
from zoo.metrics.codes import CodeStatistics

HISTOGRAM_BARS = 256
GROUPS = 10  # of files, for the intervals of figures of the whole set


@dataclass(frozen=True)
class File:
    """source: its path relative to the data folder."""

    path: Path
    source: str
    sha256: str


class Benchmark:
    """All that `bench` does, in two steps: what cannot be had is known before `run` starts.

    Attributes:
        left_out: metrics and candidates that cannot be had, each with its reason.
        damaged: files that cannot be read, likewise; those that are found out while it runs are added.

    Args, Raises:
        As `bench`.
    """

    def __init__(
        self,
        names: Sequence[str | Path],
        data: str | Path,
        *,
        out: str | Path = "zoo-bench",
        cache: str | Path | None = None,
        metrics: Sequence[str] | None = None,
        limit: int | None = None,
        baselines: bool = True,
        resolution: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        device: str = "cpu",
        examples: bool = True,
    ):
        if limit is not None and limit < 1:
            raise InputError(f"expected a limit of at least 1 file, got {limit}")
        self.out, self.seed, self.device, self.examples = Path(out), seed, device, examples
        self.cache = Path(cache) if cache is not None else self.out / "cache"
        self.left_out: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        sources = self._sources(names)
        self.variants = {family: described(source) for family, source in sources.items()}
        specs = [source.spec for source in sources.values()]
        self.preprocessing = Preprocessing.of(specs, resolution=resolution, seconds=seconds)
        self.spec = next(spec for spec in specs if spec.sample_rate == self.preprocessing.sample_rate)
        self.metrics = self._metrics(metrics)
        self.candidates: list[Candidate] = [
            TokenizerCandidate(family, source, setting, self.preprocessing, seed)
            for family, source in sources.items()
            for setting in source.settings
        ]
        if baselines:
            codecs, reasons = classical(self.preprocessing)
            self.candidates += codecs
            self.left_out |= reasons
        data = Path(data)
        paths = media.media_files(data, self.preprocessing.modality)
        self.folder = data if data.is_dir() else data.parent
        self._paths = paths[:limit]
        self._metrics_version = metrics_version()

    def __len__(self) -> int:
        """Steps of `run`: each candidate and file is encoded, then measured."""
        return 2 * len(self.candidates) * len(self._paths)

    def run(self, advance: Callable[[], None] = lambda: None) -> Results:
        """Do the work, write `results.json` and `report.html`, and return the results.

        Args:
            advance: called after each step.

        Raises:
            MediaError: no file could be read, or the folder of the results cannot be written.
        """
        make_folder(self.cache)
        files = list(self._files())
        for candidate in self.candidates:
            self._encode(candidate, files, advance)
            candidate.release()
        measured = {file.source: self._measure(file, advance) for file in files}
        good = [file for file in files if file.source not in self.damaged]
        if not good:
            raise MediaError(f"{self.folder}: none of its files can be used: {next(iter(self.damaged.values()))}")
        points = [
            self._point(candidate, good, [measured[file.source][candidate.label] for file in good])
            for candidate in self.candidates
            if candidate.label not in self.left_out
        ]
        results = Results(
            modality=self.preprocessing.modality,
            rate_unit=RATE_UNIT[self.preprocessing.modality],
            metrics={name: shown(metric) for name, metric in self.metrics.items()},
            points=points,
            left_out=self.left_out,
            damaged=self.damaged,
            data=self._data(good),
            machine=machine(self.device),
            versions=versions(),
            seeds={"bootstrap": self.seed, "generator": self.seed},
            comparisons=compare(points, self.metrics),
            variants=self.variants,
        )
        results.save(self.out / "results.json")
        from zoo.bench.report import write_report

        write_report(results, self.out, self.out / "report.html", self.examples)
        return results

    # What there is to do

    def _sources(self, names: Sequence[str | Path]) -> dict[str, Source]:
        """By family; those that cannot be had are left out as long as one remains."""
        if not names:
            raise InputError("expected the name of at least one tokenizer")
        sources: dict[str, Source] = {}
        errors: list[ZooError] = []
        for name in dict.fromkeys(map(str, names)):
            try:
                source = Source(name, self.device)
            except UnknownTokenizerError:
                raise
            except ZooError as error:
                self.left_out[name] = str(error)
                errors.append(error)
                continue
            same = sources.get(source.spec.name)
            if same is None:
                sources[source.spec.name] = source
            elif same.weights_sha256 != source.weights_sha256 or same.network_sha256 != source.network_sha256:
                sources[name] = source
        if not sources:
            raise errors[0]
        return sources

    def _metrics(self, names: Sequence[str] | None) -> dict[str, Metric]:
        known = METRICS[self.preprocessing.modality]
        if unknown := [name for name in names or () if name not in known]:
            raise InputError(
                f"unknown {self.preprocessing.modality} metric {unknown[0]!r}; there are {', '.join(known)}"
            )
        wanted = {name: known[name] for name in (known if names is None else dict.fromkeys(names))}
        reasons = {name: metric.missing() for name, metric in wanted.items()}
        self.left_out |= {wanted[name].label: reason for name, reason in reasons.items() if reason is not None}
        return {name: metric for name, metric in wanted.items() if reasons[name] is None}

    def _files(self) -> Iterator[File]:
        for path in self._paths:
            source = path.relative_to(self.folder).as_posix()
            try:
                yield File(path, source, file_sha256(path))
            except MediaError as error:
                self.damaged[source] = str(error)

    # Each candidate and file

    def _encode(self, candidate: Candidate, files: Sequence[File], advance: Callable[[], None]) -> None:
        """All files through one candidate, so that one is in memory at a time.

        A file that fails is noted, a codec that fails is left out.
        """
        run = Run(candidate, self.preprocessing, self.device)
        for file in files:
            entry = self._entry(candidate, file)
            if file.source in self.damaged or candidate.label in self.left_out or entry.read_item() is not None:
                advance()
                continue
            try:
                signal = self._load(file)
                self._keep(run, entry, signal, run(signal))
            except FileFailure as error:
                self.damaged[file.source] = str(error)
            except CodecFailure as error:
                self.left_out[candidate.label] = f"failed on {file.source}: {error}"
            advance()

    def _measure(self, file: File, advance: Callable[[], None]) -> dict[str, dict[str, Any]]:
        """Records by label, with every figure that is wanted.

        One file after the other, so that it is read once, and what a metric finds out of an original serves all.
        """
        keys = {name: self._metric_key(name) for name, metric in self.metrics.items() if metric.per_item is not None}
        signal = functools.cache(functools.partial(self._load, file))
        records: dict[str, dict[str, Any]] = {}
        for candidate in self.candidates:
            if file.source not in self.damaged and candidate.label not in self.left_out:
                entry = self._entry(candidate, file)
                record = entry.read_item()
                try:
                    if wanted := [name for name, key in keys.items() if key not in record["metrics"]]:
                        reconstruction = self.preprocessing.read(entry.reconstruction, signal())
                        for name in wanted:
                            figure = self._figure(self.metrics[name], reconstruction, signal())
                            record["metrics"][keys[name]] = figure
                        entry.write(record)
                    records[candidate.label] = record
                except FileFailure as error:
                    self.damaged[file.source] = str(error)
            advance()
        return records

    def _entry(self, candidate: Candidate, file: File) -> Entry:
        key = content_key(file.sha256, asdict(self.preprocessing), candidate.identity())
        return Entry(self.cache, key, self.preprocessing.modality)

    def _load(self, file: File) -> Signal:
        try:
            return self.preprocessing.load(file.path)
        except ZooError as error:
            raise FileFailure(str(error)) from error

    def _keep(self, run: Run, entry: Entry, signal: Signal, outcome: Outcome) -> dict[str, Any]:
        """Writes codes, reconstruction and what is known so far."""
        make_folder(entry.reconstruction.parent)
        if isinstance(run.candidate, TokenizerCandidate):
            entry.write_codes(outcome.payload, run.candidate)
        self.preprocessing.write(entry.reconstruction, outcome.reconstruction)
        record = {
            "bytes": outcome.bytes,
            "amount": self.preprocessing.amount(signal),
            "encode_seconds": outcome.encode_seconds,
            "decode_seconds": outcome.decode_seconds,
            "peak_bytes": outcome.peak_bytes,
            "has_codes": isinstance(run.candidate, TokenizerCandidate),
            "metrics": {},
        }
        entry.write(record)
        return record

    def _metric_key(self, name: str) -> str:
        return f"{name} {self._metrics_version}"

    def _figure(self, metric: Metric, reconstruction: torch.Tensor, signal: Signal) -> float | None:
        try:
            value = float(metric.per_item(reconstruction, signal.values, self.spec).double().mean())
        except InputError:  # such as too small a picture
            return None
        return value if math.isfinite(value) else None

    # Points

    def _point(self, candidate: Candidate, files: Sequence[File], used: Sequence[dict[str, Any]]) -> Point:
        """Of the records `used`, one a file."""
        amount = sum(record["amount"] for record in used)
        num_bytes = sum(record["bytes"] for record in used)
        entries = [self._entry(candidate, file) for file in files]
        items = [
            Item(
                source=file.source,
                bytes=record["bytes"],
                encode_seconds=record["encode_seconds"],
                decode_seconds=record["decode_seconds"],
                metrics={
                    name: record["metrics"][self._metric_key(name)]
                    for name, metric in self.metrics.items()
                    if metric.per_item is not None
                },
                reconstruction=Path(os.path.relpath(entry.reconstruction, self.out)).as_posix(),
            )
            for file, record, entry in zip(files, used, entries, strict=True)
        ]
        return Point(
            label=candidate.label,
            family=candidate.family,
            baseline=candidate.baseline,
            setting=candidate.setting,
            identity=candidate.identity(),
            bytes=num_bytes / len(used),
            rate=self.preprocessing.rate(num_bytes, amount),
            metrics={
                name: bootstrap_interval([item.metrics[name] for item in items], seed=self.seed)
                if metric.per_item is not None
                else self._of_set(name, metric, candidate, files, entries)
                for name, metric in self.metrics.items()
            },
            encode_speed=self.preprocessing.speed(amount, sum(record["encode_seconds"] for record in used)),
            decode_speed=self.preprocessing.speed(amount, sum(record["decode_seconds"] for record in used)),
            peak_bytes=max(record["peak_bytes"] for record in used),
            codes=code_figures(candidate, entries) if isinstance(candidate, TokenizerCandidate) else None,
            note=candidate.note,
            items=items,
        )

    def _of_set(
        self, name: str, metric: Metric, candidate: Candidate, files: Sequence[File], entries: Sequence[Entry]
    ) -> Interval:
        """A figure of the whole set; of its items only what the metric sums up is kept, in groups."""
        contents = [file.sha256 for file in files]
        key = content_key(self._metric_key(name), asdict(self.preprocessing), candidate.identity(), contents)
        kept = Entry(self.cache, key, self.preprocessing.modality)
        record = kept.read()
        if record is None:
            new = functools.partial(metric.streaming, self.spec)
            groups = [new() for _ in range(min(GROUPS, len(files)))]
            for number, (file, entry) in enumerate(zip(files, entries, strict=True)):
                original = self.preprocessing.load(file.path)
                reconstruction = self.preprocessing.read(entry.reconstruction, original)
                groups[number % len(groups)].update(reconstruction, original.values)
            record = asdict(jackknife_interval(groups, new))
            kept.write(record)
        return Interval(**record)

    def _data(self, files: Sequence[File]) -> dict[str, Any]:
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.source} {file.sha256}\n".encode())
        preprocessing = asdict(self.preprocessing)
        del preprocessing["modality"]
        return {
            "folder": str(self.folder.resolve()),
            "files": len(files),
            "sha256": digest.hexdigest(),
            "preprocessing": preprocessing,
        }


def bench(names: Sequence[str | Path], data: str | Path, **options: Any) -> Results:
    """Tokenizers beside the classical codecs on a folder of files.

    Writes `results.json`, `report.html` and, in `cache`, every reconstruction. What is in the cache is not encoded
    again, so that an interrupted run goes on where it was.

    Args:
        names: variants of one modality, as `zoo.load` takes them; each at every rate that it supports.
        data: folder, of which all files of the modality are taken, with its subfolders; or a file.
        out: folder of the results; default `zoo-bench`.
        cache: folder; default: `cache` in `out`.
        metrics: names in `zoo.metrics.METRICS`; default: all.
        limit: of files, the first by name.
        baselines: whether the classical codecs are run as well.
        resolution: of images and video: the short side is resized to it, the centre cropped square; default: as
            they are, or what a variant takes that takes one size alone.
        seconds: of audio and video; what follows is left out.
        seed: of the bootstrap, and of decoders that draw.
        device: where the tokenizers run; the metrics run on the CPU.
        examples: whether the report shows originals and reconstructions.

    Raises:
        InputError: variants that do not compare, an unknown metric, or a limit, resolution or duration of nothing.
        MediaError: no such folder, no file of the modality in it, or none that can be read.
        As `zoo.load`, where no tokenizer remains; one of several that cannot be had is left out.
    """
    return Benchmark(names, data, **options).run()


class FileFailure(Exception):
    """A file that cannot be read, or that a tokenizer refuses."""


class CodecFailure(Exception):
    """A baseline that failed, with whatever error its library has."""


@dataclass(frozen=True)
class Outcome:
    bytes: float
    payload: Any
    reconstruction: Signal
    encode_seconds: float
    decode_seconds: float
    peak_bytes: int


class Run:
    """A candidate on one signal after the other, timed; the first is done twice, so that what is slow once is over."""

    def __init__(self, candidate: Candidate, preprocessing: Preprocessing, device: str):
        self.candidate, self.preprocessing, self.device = candidate, preprocessing, device
        self.memory: PeakMemory | None = None

    def __call__(self, signal: Signal) -> Outcome:
        """Raises: FileFailure where a tokenizer refuses the signal, CodecFailure of a baseline."""
        try:
            if self.memory is None:
                self.candidate.release()
                self.memory = PeakMemory(self.device)
                self._through(signal)
            return self._through(signal)
        except Exception as error:
            if self.candidate.baseline:
                raise CodecFailure(f"{type(error).__name__}: {error}") from error
            if isinstance(error, ZooError):
                raise FileFailure(f"{self.candidate.label}: {error}") from error
            raise

    def _through(self, signal: Signal) -> Outcome:
        with self.memory.watch():
            start = time.perf_counter()
            num_bytes, payload = self.candidate.compress(signal.values)
            middle = time.perf_counter()
            restored = self.candidate.restore(payload, self.preprocessing.size(signal.values))
            end = time.perf_counter()
        if restored.shape != signal.values.shape:
            raise InputError(f"expected {list(signal.values.shape)} back, got {list(restored.shape)}")
        finite = restored.isfinite().all() if self.preprocessing.modality != "structure" else restored.isfinite().any()
        if not finite:
            raise InputError("expected a reconstruction, got values that are not finite")
        reconstruction = Signal(restored, signal.frame_rate)
        return Outcome(num_bytes, payload, reconstruction, middle - start, end - middle, self.memory.bytes)


def code_figures(candidate: TokenizerCandidate, entries: Sequence[Entry]) -> dict[str, Any]:
    """Of the codes of all items, as `Point.codes` has them."""
    statistics = CodeStatistics(candidate.sizes)
    for entry in entries:
        statistics.update(entry.read_codes())
    summary = statistics.compute()
    return {
        "tokens": summary.positions * len(candidate.sizes) / len(entries),
        "usage": summary.usage,
        "perplexity": summary.perplexity,
        "entropy_bits": summary.entropy,
        "paid_bits": [math.log2(size) for size in candidate.sizes],
        "histogram": [histogram(statistics, k) for k in range(len(candidate.sizes))],
        "statistics": summary._asdict(),
    }


def histogram(statistics: CodeStatistics, codebook: int) -> list[int]:
    """Counts of a codebook's entries in at most `HISTOGRAM_BARS` bars; empty where they were not counted."""
    if codebook not in statistics.entries.starts:
        return []
    counts = statistics.entries.of(statistics.entry_counts, codebook)
    width = -(-len(counts) // HISTOGRAM_BARS)
    return [int(part.sum()) for part in counts.split(width)]


def described(source: Source) -> dict[str, Any]:
    """Its spec and what its hashes are, as JSON has them."""
    spec = json.loads(json.dumps(asdict(source.spec)))
    return {
        **spec,
        "weights_sha256": source.weights_sha256,
        "network_sha256": source.network_sha256,
        "parameters": source.parameters,
    }


def shown(metric: Metric) -> dict[str, Any]:
    """What the results say of a metric."""
    return {
        "label": metric.label,
        "unit": metric.unit,
        "digits": metric.digits,
        "higher_is_better": metric.higher_is_better,
        "per_item": metric.per_item is not None,
    }
