"""Published evaluations by name: each is a file of settings in this folder, with its source.

A file has the fields of `Protocol`: those of `zoo.bench.signals.Preprocessing` in a table `[preprocessing]`, and the
settings of each metric in a table `[metrics.NAME]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.metrics import Metric, metric_with

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings of a published evaluation.

    Attributes:
        name: name of its file.
        title: what it measures, in words.
        modality: modality of its files.
        data: the files that figures were published for.
        files: number of these files; None: the source does not say.
        sources: where each setting was found.
        differences: what is not as in the source, and why.
        preprocessing: fields of `zoo.bench.signals.Preprocessing`.
        metrics: settings by the metric's name.
    """

    name: str
    title: str
    modality: str
    data: str
    files: int | None = None
    sources: tuple[str, ...]
    differences: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]

    def chosen_metrics(self) -> dict[str, Metric]:
        """Return the metrics by name, as the protocol sets them."""
        return {name: metric_with(self.modality, name, settings) for name, settings in self.metrics.items()}

    def facts(self, files: int) -> dict[str, Any]:
        """Return what `Results.protocol` has about a run on a number of files."""
        facts = asdict(self)
        if self.files not in (None, files):
            facts["differences"] = [*self.differences, f"{files:,} files instead of {self.files:,}"]
        return facts


def names() -> list[str]:
    """Return the names of the protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Protocol:
    """Return a protocol by name; InputError for an unknown one."""
    if name not in names():
        raise InputError(f"unknown protocol {name!r}; there are {', '.join(names())}")
    fields = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    sources, differences = tuple(fields.pop("sources")), tuple(fields.pop("differences"))
    return Protocol(name=name, sources=sources, differences=differences, **fields)
