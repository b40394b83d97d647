"""What a run shows: TensorBoard, the history file, a progress bar or, without a terminal, a line now and then."""

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
from zoo.trainers.discriminators.image import frames
from zoo.trainers.run import RunFolder
from zoo.trainers.validation import ValidationResult


class Report:
    """Context in which a run is shown. `step` is where it starts, `steps` where it ends."""

    def __init__(self, folder: RunFolder, spec: TokenizerSpec, step: int, steps: int):
        self.folder, self.spec, self.steps = folder, spec, steps
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
        self.task = self.progress.add_task(spec.name, total=steps, completed=step, speed="")
        self.losses = Text()
        self.live = Live(Group(self.progress, self.losses), console=self.console)
        self._last = (step, time.monotonic())

    def __enter__(self) -> Report:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        self.writer.close()

    def advance(self) -> None:
        """One step is done."""
        self.progress.advance(self.task)

    def training(self, step: int, values: Mapping[str, float], learning_rate: float) -> None:
        """Losses by name, averaged since the last time."""
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
        """Metrics, and a few originals and reconstructions side by side."""
        self._scalars("validation", step, result.metrics)
        self.say(f"step {step}/{self.steps}  validation  {_line(result.metrics)}")
        if result.warning:
            self.say(f"warning: {result.warning}")
        pairs = list(zip(result.originals, result.reconstructions, strict=True))
        if pairs and self.spec.modality in ("image", "video"):
            self.writer.add_image("samples", sample_grid(pairs), step)
            return
        for number, pair in enumerate(pairs):
            for kind, signal in zip(("original", "reconstruction"), pair, strict=True):
                name = f"{number}/{kind}"
                if self.spec.modality == "audio":
                    self.writer.add_audio(name, signal.mean(0).clamp(-1, 1), step, self.spec.sample_rate)
                else:
                    self.writer.add_image(name, distance_picture(signal), step)

    def exclude(self, seconds: float) -> None:
        """Leave `seconds` that were no training out of the speed."""
        step, last = self._last
        self._last = (step, last + seconds)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)
        self.folder.add_history({"step": step, group: dict(values)})


def sample_grid(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Originals and reconstructions as one picture `[3, H, W]`.

    Of pictures `[3, H, W]` a pair is a row; of clips `[3, T, H, W]` each has its frames in a row, the original's above.
    """
    pictures = torch.cat([frames(side[None]) for pair in pairs for side in pair]).clamp(0, 1)
    return make_grid(pictures, nrow=max(2, len(pictures) // (2 * len(pairs))))


def distance_picture(structure: Tensor) -> Tensor:
    """Distances between the CA atoms of `[residues, 5, 3]` as `[1, residues, residues]`: black 0, white 30 angstrom."""
    alpha = structure[:, ATOMS.index("CA")]
    return torch.cdist(alpha, alpha)[None].nan_to_num().div(30).clamp(max=1)


def _line(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
