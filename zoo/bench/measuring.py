"""The figures of reconstructions that are kept: of every item, and of whole sets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from zoo.bench.cache import Entry
from zoo.bench.data import DataFile, DataFolder
from zoo.bench.machine import metrics_version
from zoo.bench.results import Interval
from zoo.bench.statistics import bootstrap_interval, jackknife_interval
from zoo.bench.timing import FileFailure
from zoo.errors import InputError, as_zoo_error
from zoo.metrics import Metric
from zoo.modalities import Signal

GROUPS = 10  # of files, for the intervals of figures of the whole set


class Measurements:
    """Computes figures and keeps them in the records of the cache.

    Figures of metrics of one's own are computed in every run, since nothing tells when their code has changed.

    Args:
        metrics: by name.
        own: names of those of one's own.
        data: the files.
        seed: random seed of the intervals.
    """

    def __init__(self, metrics: Mapping[str, Metric], own: Collection[str], data: DataFolder, seed: int):
        self.metrics, self.own, self.data, self.preprocessing, self.seed = metrics, own, data, data.preprocessing, seed
        self.of_items = {name: metric for name, metric in metrics.items() if metric.per_item is not None}
        self._version = metrics_version()

    def key(self, name: str) -> str:
        """Return the name of a figure in a record."""
        return f"own {name}" if name in self.own else f"{self.metrics[name].described} {self._version}"

    def add(self, record: dict[str, Any], entry: Entry, signal: Callable[[], Signal]) -> None:
        """Compute the figures of an item that its record lacks.

        Raises:
            FileFailure: the reconstruction cannot be read, or a metric fails.
        """
        keys = {name: self.key(name) for name in self.of_items}
        wanted = [name for name in keys if name in self.own or keys[name] not in record["metrics"]]
        if not wanted:
            return
        original = signal()
        try:
            reconstruction = self.preprocessing.read(entry.reconstruction, original)
            for name in wanted:
                record["metrics"][keys[name]] = self._figure(self.of_items[name], reconstruction, original)
        except Exception as error:
            raise FileFailure(f"cannot be measured: {as_zoo_error(error)}") from error
        entry.write(record)

    def figures(self, record: Mapping[str, Any]) -> dict[str, float | None]:
        """Return the figures of an item by the metric's name."""
        return {name: record["metrics"][self.key(name)] for name in self.of_items}

    def mean(self, name: str, figures: Sequence[float | None]) -> Interval:
        """Return the mean of items with its interval."""
        return bootstrap_interval(figures, seed=self.seed)

    def of_set(self, name: str, files: Sequence[DataFile], entries: Sequence[Entry], kept: Entry) -> Interval:
        """Return a figure of the whole set, from what the metric sums up over groups of files; no file is held.

        kept: where the figure is kept.
        """
        record = kept.read()
        if record is None or name in self.own:
            new = functools.partial(self.metrics[name].streaming, self.preprocessing.spec)
            groups = [new() for _ in range(min(GROUPS, len(files)))]
            for number, (file, entry) in enumerate(zip(files, entries, strict=True)):
                original = self.data.load(file)
                reconstruction = self.preprocessing.read(entry.reconstruction, original)
                groups[number % len(groups)].update(reconstruction[None], original.values[None])
            record = asdict(jackknife_interval(groups, new))
            kept.write(record)
        return Interval(**record)

    def _figure(self, metric: Metric, reconstruction: Tensor, signal: Signal) -> float | None:
        assert metric.per_item is not None
        try:
            figures = metric.per_item(reconstruction[None], signal.values[None], self.preprocessing.spec)
        except InputError:  # such as an image that is too small
            return None
        value = float(figures.double().mean())
        return value if math.isfinite(value) else None


def metric_facts(metric: Metric) -> dict[str, Any]:
    """Return what `Results.metrics` has about a metric."""
    return {
        "label": metric.label,
        "unit": metric.unit,
        "digits": metric.digits,
        "higher_is_better": metric.higher_is_better,
        "per_item": metric.per_item is not None,
        "settings": dict(metric.settings),
    }
