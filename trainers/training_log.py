"""The log of a run: TensorBoard, the history file, and a progress bar or, without a terminal, lines on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from zoo.modalities.structure import ATOMS
from zoo.spec import TokenizerSpec
from zoo.trainers.data.options import AudioData, VisualData
from zoo.trainers.frames import frames
from zoo.trainers.recipe import Recipe
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.validation import ValidationResult


class TrainingLog:
    """Context in which a run is logged.

    Args:
        folder, recipe: those of the run. spec: that of the tokenizer. step: number of steps done before.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, spec: TokenizerSpec, step: int):
        self.folder, self.recipe, self.spec, self.steps = folder, recipe, spec, recipe.steps
        self.writer = SummaryWriter(folder.path / "tensorboard", purge_step=step + 1)
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.task = self.progress.add_task(spec.name, total=self.steps, completed=step, speed="")
        self.losses = Text()
        self.live = Live(Group(self.progress, self.losses), console=self.console)
        self._last = (step, time.monotonic())

    def __enter__(self) -> TrainingLog:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        self.writer.close()

    def advance(self) -> None:
        """Move the progress bar on by one step."""
        self.progress.advance(self.task)

    def training(self, step: int, values: Mapping[str, float], learning_rate: float) -> None:
        """Log the losses by name, means since the last call, and the speed."""
        last_step, last_time = self._last
        now = time.monotonic()
        speed = (step - last_step) / max(now - last_time, 1e-9)
        self._last = (step, now)
        self._scalars("training", step, {**values, "learning_rate": learning_rate})
        self.writer.add_scalar("steps_per_second", speed, step)
        text = _line(values)
        if self.console.is_terminal:
            self.progress.update(self.task, speed=f"{speed:.2f} steps/s")
            self.losses.plain = text
        else:
            left = (self.steps - step) / speed
            self.say(f"step {step}/{self.steps}  {text}  {speed:.2f} steps/s  {_duration(left)} left")

    def validation(self, step: int, result: ValidationResult) -> None:
        """Log the metrics, and a few originals and reconstructions side by side."""
        self._scalars("validation", step, result.metrics)
        self.say(f"step {step}/{self.steps}  validation  {_line(result.metrics)}")
        if result.warning:
            self.say(f"warning: {result.warning}")
        pairs = list(zip(result.originals, result.reconstructions, strict=True))
        if pairs and isinstance(self.recipe.data, VisualData):
            self.writer.add_image("samples", sample_grid(pairs), step)
            return
        for number, pair in enumerate(pairs):
            for kind, signal in zip(("original", "reconstruction"), pair, strict=True):
                name = f"{number}/{kind}"
                if isinstance(self.recipe.data, AudioData):
                    self.writer.add_audio(name, signal.mean(0).clamp(-1, 1), step, self.spec.sample_rate)
                else:
                    self.writer.add_image(name, distance_image(signal), step)

    def exclude(self, seconds: float) -> None:
        """Leave out of the speed `seconds` in which nothing was trained."""
        step, last = self._last
        self._last = (step, last + seconds)

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        if self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)
        self.folder.add_history({"step": step, group: dict(values)})


def sample_grid(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Originals and reconstructions as one image `[3, H, W]`.

    A pair of images `[3, H, W]` is a row; a pair of clips `[3, T, H, W]` is two rows of frames, the original's first.
    """
    images = torch.cat([frames(side[None]) for pair in pairs for side in pair]).clamp(0, 1)
    return make_grid(images, nrow=max(2, len(images) // (2 * len(pairs))))


def distance_image(structure: Tensor) -> Tensor:
    """Distances between the CA atoms of `[residues, 5, 3]` as an image `[1, residues, residues]`.

    Black is 0 angstrom, white 30 angstrom or more.
    """
    alpha = structure[:, ATOMS.index("CA")]
    return torch.cdist(alpha, alpha)[None].nan_to_num().div(30).clamp(max=1)


def _line(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
