"""The benchmark: every candidate encodes and decodes a folder of files, except for what is in the cache already.

Files and candidates are taken one by one and no signal is kept in memory, so that memory does not grow with them.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zoo import media
from zoo.bench.baselines import classical_codecs
from zoo.bench.cache import Entry, content_key, file_sha256, make_folder
from zoo.bench.candidates import Candidate, LazyTokenizer, TokenizerCandidate
from zoo.bench.codes import code_figures
from zoo.bench.comparisons import compare
from zoo.bench.machine import machine_facts, metrics_version, versions
from zoo.bench.report import write_report
from zoo.bench.results import Interval, Item, Point, Results
from zoo.bench.signals import Preprocessing
from zoo.bench.statistics import bootstrap_interval, jackknife_interval
from zoo.bench.timing import CodecFailure, FileFailure, Outcome, TimedCandidate
from zoo.errors import InputError, MediaError, UnknownTokenizerError, ZooError, as_zoo_error
from zoo.metrics import METRICS, Metric
from zoo.modalities import Signal

GROUPS = 10  # of files, for the intervals of figures of the whole set


@dataclass(frozen=True)
class DataFile:
    """One file of the data; `source` is its path relative to the data folder."""

    path: Path
    source: str
    sha256: str


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
        num_codebooks: Sequence[int] | None = None,
    ):
        if limit is not None and limit < 1:
            raise InputError(f"expected a limit of at least 1 file, got {limit}")
        data = Path(data)
        self.folder = data if data.is_dir() else data.parent
        self.data_name = data.name if data.is_absolute() or ".." in data.parts else data.as_posix()
        self.out, self.seed, self.device, self.examples = Path(out), seed, device, examples
        self.cache = Path(cache) if cache is not None else self.out / "cache"
        self.left_out: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        tokenizers = self._tokenizers(names, num_codebooks)
        self.variants = {method: lazy.facts() for method, lazy in tokenizers.items()}
        specs = [lazy.spec for lazy in tokenizers.values()]
        self.preprocessing = Preprocessing.of(specs, resolution=resolution, seconds=seconds)
        self.metrics = self._metrics(metrics)
        self.candidates: list[Candidate] = [
            TokenizerCandidate(method, lazy, setting, self.preprocessing, seed)
            for method, lazy in tokenizers.items()
            for setting in lazy.settings
        ]
        if baselines:
            codecs, reasons = classical_codecs(self.preprocessing)
            self.candidates += codecs
            self.left_out |= reasons
        self._paths = media.media_files(data, self.preprocessing.modality)[:limit]
        self._metrics_version = metrics_version()

    def __len__(self) -> int:
        """Return the number of steps of `run`: each file is encoded by each candidate, then measured."""
        return 2 * len(self.candidates) * len(self._paths)

    def run(self, advance: Callable[[], None] = lambda: None) -> Results:
        """Do the work, write `results.json`, `items.jsonl` and `report.html`, and return the results.

        Args:
            advance: called after each step.

        Raises:
            MediaError: no file can be read, or the folder of the results cannot be written.
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
            rate_unit=self.preprocessing.kind.rate_unit,
            metrics={name: metric_facts(metric) for name, metric in self.metrics.items()},
            points=points,
            left_out=self.left_out,
            damaged=self.damaged,
            data=self._data(good),
            machine=machine_facts(self.device),
            versions=versions(),
            seeds={"bootstrap": self.seed, "generator": self.seed},
            comparisons=compare(points, self.metrics),
            variants=self.variants,
        )
        results.save(self.out / "results.json")
        write_report(results, self.out, self.out / "report.html", data=self.folder if self.examples else None)
        return results

    # What there is to do

    def _tokenizers(self, names: Sequence[str | Path], num_codebooks: Sequence[int] | None) -> dict[str, LazyTokenizer]:
        """Return tokenizers by the name of their method; one that is not available is left out if another is."""
        if not names:
            raise InputError("expected the name of at least one tokenizer")
        found: dict[str, LazyTokenizer] = {}
        errors: list[ZooError] = []
        for name in dict.fromkeys(map(str, names)):
            try:
                lazy = LazyTokenizer(name, self.device, num_codebooks)
            except UnknownTokenizerError:
                raise
            except ZooError as error:
                self.left_out[self._portable(name)] = self._portable(str(error))
                errors.append(error)
                continue
            same = found.get(lazy.spec.name)
            if same is None:
                found[lazy.spec.name] = lazy
            elif same.weights_sha256 != lazy.weights_sha256 or same.network_sha256 != lazy.network_sha256:
                found[self._portable(name)] = lazy
        if not found:
            raise errors[0]
        return found

    def _metrics(self, names: Sequence[str] | None) -> dict[str, Metric]:
        known = METRICS[self.preprocessing.modality]
        if unknown := [name for name in names or () if name not in known]:
            raise InputError(
                f"unknown {self.preprocessing.modality} metric {unknown[0]!r}; there are {', '.join(known)}"
            )
        wanted = {name: known[name] for name in (known if names is None else dict.fromkeys(names))}
        reasons = {name: metric.missing() for name, metric in wanted.items()}
        for name, reason in reasons.items():
            if reason is not None:
                self.left_out[wanted[name].label] = self._portable(reason)
        return {name: metric for name, metric in wanted.items() if reasons[name] is None}

    def _files(self) -> Iterator[DataFile]:
        for path in self._paths:
            source = path.relative_to(self.folder).as_posix()
            try:
                yield DataFile(path, source, file_sha256(path))
            except MediaError as error:
                self.damaged[source] = self._portable(str(error))

    def _portable(self, text: str) -> str:
        """Return `text` without the data folder's path and with `~` for the home folder, since results are shared."""
        return text.replace(f"{self.folder}{os.sep}", "").replace(str(Path.home()), "~")

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
                    self._add_figures(record, entry, signal)
                    records[candidate.label] = record
                except FileFailure as error:
                    self.damaged[file.source] = self._portable(str(error))
            advance()
        return records

    def _add_figures(self, record: dict[str, Any], entry: Entry, signal: Callable[[], Signal]) -> None:
        """Compute the figures of an item that its record lacks."""
        wanted = [
            (self._metric_key(name), metric)
            for name, metric in self.metrics.items()
            if metric.per_item is not None and self._metric_key(name) not in record["metrics"]
        ]
        if not wanted:
            return
        original = signal()
        try:
            reconstruction = self.preprocessing.read(entry.reconstruction, original)
            for key, metric in wanted:
                record["metrics"][key] = self._figure(metric, reconstruction, original)
        except Exception as error:
            raise FileFailure(f"cannot be measured: {as_zoo_error(error)}") from error
        entry.write(record)

    def _entry(self, candidate: Candidate, file: DataFile) -> Entry:
        return self._entry_of(file.sha256, asdict(self.preprocessing), candidate.identity())

    def _entry_of(self, *parts: Any) -> Entry:
        return Entry(self.cache, content_key(*parts), self.preprocessing.kind.lossless_suffix)

    def _load(self, file: DataFile) -> Signal:
        try:
            return self.preprocessing.load(file.path)
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

    def _metric_key(self, name: str) -> str:
        return f"{name} {self._metrics_version}"

    def _figure(self, metric: Metric, reconstruction: torch.Tensor, signal: Signal) -> float | None:
        assert metric.per_item is not None
        try:
            figures = metric.per_item(reconstruction[None], signal.values[None], self.preprocessing.spec)
        except InputError:  # such as an image that is too small
            return None
        value = float(figures.double().mean())
        return value if math.isfinite(value) else None

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
                name: bootstrap_interval([item.metrics[name] for item in items], seed=self.seed)
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
        names = [name for name, metric in self.metrics.items() if metric.per_item is not None]
        return Item(
            source=file.source,
            bytes=record["bytes"],
            encode_seconds=record["encode_seconds"],
            decode_seconds=record["decode_seconds"],
            metrics={name: record["metrics"][self._metric_key(name)] for name in names},
            reconstruction=Path(os.path.relpath(entry.reconstruction, self.out)).as_posix(),
        )

    def _figure_of_set(
        self, name: str, metric: Metric, candidate: Candidate, files: Sequence[DataFile], entries: Sequence[Entry]
    ) -> Interval:
        """Return a figure of the whole set, from what the metric sums up over groups of files; no file is kept."""
        contents = [file.sha256 for file in files]
        kept = self._entry_of(self._metric_key(name), asdict(self.preprocessing), candidate.identity(), contents)
        record = kept.read()
        if record is None:
            try:
                record = asdict(self._compute_for_set(metric, files, entries))
            except Exception as error:
                reason = f"cannot be computed: {as_zoo_error(error)}"
                self.left_out[f"{metric.label} of {candidate.label}"] = self._portable(reason)
                return Interval(value=None)
            kept.write(record)
        return Interval(**record)

    def _compute_for_set(self, metric: Metric, files: Sequence[DataFile], entries: Sequence[Entry]) -> Interval:
        new = functools.partial(metric.streaming, self.preprocessing.spec)
        groups = [new() for _ in range(min(GROUPS, len(files)))]
        for number, (file, entry) in enumerate(zip(files, entries, strict=True)):
            original = self.preprocessing.load(file.path)
            reconstruction = self.preprocessing.read(entry.reconstruction, original)
            groups[number % len(groups)].update(reconstruction[None], original.values[None])
        return jackknife_interval(groups, new)

    def _data(self, files: Sequence[DataFile]) -> dict[str, Any]:
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.source} {file.sha256}\n".encode())
        preprocessing = asdict(self.preprocessing)
        del preprocessing["modality"]
        return {
            "name": self.data_name,
            "files": len(files),
            "sha256": digest.hexdigest(),
            "preprocessing": preprocessing,
        }


def bench(
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
    num_codebooks: Sequence[int] | None = None,
) -> Results:
    """Measure tokenizers and classical codecs on a folder of files.

    Writes `results.json`, `items.jsonl`, `report.html` and, in `cache`, every reconstruction. What is in the cache is
    not encoded again, so that an interrupted run continues where it was.

    Args:
        names: variants of one modality, as `zoo.load` takes them; each at every rate that it supports.
        data: folder whose files of the modality are taken, with its subfolders; or one file.
        out: folder for the results; default: `zoo-bench`.
        cache: folder for the cache; default: `cache` in `out`.
        metrics: names in `zoo.metrics.METRICS`; default: all.
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
        InputError: variants that cannot be compared, an unknown metric, or an option that they do not take.
        MediaError: no such folder, no file of the modality in it, or none that can be read.
        As `zoo.load`, if no tokenizer is available; if only some are not, they are left out.
    """
    return Benchmark(
        names,
        data,
        out=out,
        cache=cache,
        metrics=metrics,
        limit=limit,
        baselines=baselines,
        resolution=resolution,
        seconds=seconds,
        seed=seed,
        device=device,
        examples=examples,
        num_codebooks=num_codebooks,
    ).run()


def metric_facts(metric: Metric) -> dict[str, Any]:
    """Return what `Results.metrics` has about a metric."""
    return {
        "label": metric.label,
        "unit": metric.unit,
        "digits": metric.digits,
        "higher_is_better": metric.higher_is_better,
        "per_item": metric.per_item is not None,
    }
