"""Scores of VERSA (Shi et al. 2025, arXiv 2412.17667; github.com/wavlab-speech/versa), computed by its own command.

VERSA is on no package index; where it is installed, `versa-score` is on the path. It fetches its networks itself.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchmetrics
from torch import Tensor

from zoo.errors import InputError, WeightsUnavailableError, ZooError
from zoo.metrics.base import Metric
from zoo.metrics.speech import check_pair
from zoo.metrics.streaming import Mean
from zoo.spec import TokenizerSpec

COMMAND = "versa-score"
SIDES = ("pred", "gt")


def versa_metric(
    score: str,
    config: Sequence[Mapping[str, Any]],
    *,
    higher_is_better: bool | None,
    label: str | None = None,
    unit: str = "",
    digits: int = 3,
) -> Metric:
    """Return the mean of a score of VERSA over a set as a metric, for `own_metrics=` and `--metric`.

    Reconstructions and originals are written as float WAV files at the tokenizer's rate, each channel for itself, and
    the command scores several files at once; files that it leaves out, such as too short ones, are left out here.

    Args:
        score: name of the score in VERSA's results, such as "utmos".
        config: what VERSA's configuration file lists, such as `[{"name": "pseudo_mos", "predictor_types": ["utmos"]}]`.
        higher_is_better: None where neither direction is better.
        label: how it is shown; default: the score's name.
        unit: shown after it.
        digits: number of decimals.

    Raises:
        InputError: no score, or a configuration that is no list of entries with a name.
    """
    if not isinstance(score, str) or not score:
        raise InputError(f'expected the name of a score of VERSA, such as "utmos", got {score!r}')
    entries = [dict(entry) if isinstance(entry, Mapping) else entry for entry in config]
    if not entries or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise InputError(f'expected VERSA\'s configuration as a list such as [{{"name": "stoi"}}], got {config!r}')
    return Metric(
        name=f"versa_{score}",
        label=label or f"{score} (VERSA)",
        unit=unit,
        digits=digits,
        higher_is_better=higher_is_better,
        of_set=partial(VersaMean, score, entries),
        settings={"config": entries},
        missing=versa_missing,
    )


def versa_missing() -> str | None:
    """Return how to get VERSA; None: its command is there."""
    if shutil.which(COMMAND) is None:
        return f"needs the command {COMMAND}: pip install git+https://github.com/wavlab-speech/versa"
    return None


class VersaMean(Mean):
    """Mean of one score of VERSA. Files wait in a temporary folder until a figure is asked for.

    Args:
        score: its name in VERSA's results.
        config: VERSA's configuration.
        spec: the tokenizer's; its sample rate is the files'.
    """

    def __init__(self, score: str, config: Sequence[Mapping[str, Any]], spec: TokenizerSpec, **options: Any):
        super().__init__(**options)
        assert spec.sample_rate is not None, "audio has a sample rate"
        self.score, self.config, self.sample_rate = score, config, spec.sample_rate
        self.folder, self.waiting = tempfile.TemporaryDirectory(prefix="zoo-versa-"), 0

    def update(self, reconstruction: Tensor, original: Tensor) -> None:
        """Add both, `[B, channels, samples]` in [-1, 1]."""
        pair = [audio.flatten(0, 1)[:, None] for audio in (reconstruction, original)]
        check_pair(pair[0], pair[1], self.sample_rate)
        for clips in zip(*pair, strict=True):
            for side, clip in zip(SIDES, clips, strict=True):
                samples = clip[0].detach().float().cpu().numpy()
                soundfile.write(self._file(side, self.waiting), samples, self.sample_rate, subtype="FLOAT")
            self.waiting += 1

    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Add what another one has seen."""
        if isinstance(incoming_state, VersaMean):
            incoming_state.measure()
        super().merge_state(incoming_state)

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar; NaN if VERSA scored no file."""
        self.measure()
        return super().compute()

    def measure(self) -> None:
        """Run VERSA on the files that wait.

        Raises:
            WeightsUnavailableError: the command is not there.
            ZooError: it fails, or its results have no such score.
        """
        if not self.waiting:
            return
        if (reason := versa_missing()) is not None:
            raise WeightsUnavailableError(f"this metric {reason}")
        folder = Path(self.folder.name)
        for side in SIDES:
            lines = [f"{number} {self._file(side, number)}\n" for number in range(self.waiting)]
            (folder / f"{side}.scp").write_text("".join(lines), encoding="utf-8")
        (folder / "config.yaml").write_text(json.dumps(self.config), encoding="utf-8")  # JSON is YAML
        files = {"--score_config": "config.yaml", "--pred": "pred.scp", "--gt": "gt.scp", "--output_file": "scores"}
        arguments = [part for option, name in files.items() for part in (option, str(folder / name))]
        done = subprocess.run(
            [COMMAND, *arguments, "--io", "soundfile"], capture_output=True, text=True, check=False, errors="replace"
        )
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()[-1]
            raise ZooError(f"{COMMAND} failed with exit status {done.returncode}: {last}")
        lines = (folder / "scores").read_text(encoding="utf-8").splitlines()
        if lines and not any(f"{mark}{self.score}{mark}" in line for line in lines for mark in "'\""):
            raise ZooError(f"{COMMAND} gave no score {self.score!r} for this configuration; it gave {lines[0]}")
        self.add(torch.tensor([score_of(line, self.score) for line in lines], dtype=torch.float64))
        for number in range(self.waiting):
            for side in SIDES:
                self._file(side, number).unlink()
        self.waiting = 0

    def _file(self, side: str, number: int) -> Path:
        return Path(self.folder.name) / f"{side}-{number}.wav"


def score_of(line: str, score: str) -> float:
    """Return a score from a line of VERSA's results: a dictionary as Python or as JSON writes it; NaN: it is not there.

    Values of NumPy may stand in it as `np.float64(1.5)`, which neither `json` nor `ast` reads.
    """
    found = re.search(rf"""(['"]){re.escape(score)}\1\s*:\s*(?:(?:np|numpy)\.\w+\()?([^,)}}\s]+)""", line)
    try:
        return float(found[2]) if found else math.nan
    except ValueError:  # a text, or none
        return math.nan
