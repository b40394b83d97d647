"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """The state of a run when `train` returns.

    run_dir: the run's folder. step: number of steps done. weights: the exported file.
    metrics: values of the last validation by name, on the first process; empty without validation data.
    """

    run_dir: Path
    step: int
    weights: Path
    metrics: dict[str, float]
