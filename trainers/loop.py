"""The training loop: reconstruction and the quantizer's losses, on Lightning Fabric."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.errors import InputError, ZooError
from zoo.tokenizer import Tokenizer
from zoo.trainers.data import Crops, Excerpts, Files, to_signal, training_batches
from zoo.trainers.losses import WeightedLosses
from zoo.trainers.recipe import Optimizer, Recipe, create_tokenizer, load_recipe
from zoo.trainers.report import Report
from zoo.trainers.run import RunFolder, write_weights
from zoo.trainers.validation import validate


@dataclass(frozen=True)
class TrainingResult:
    """run_dir: the run's folder. step: steps done. weights: the exported file. metrics: of the last validation."""

    run_dir: Path
    step: int
    weights: Path
    metrics: dict[str, float]


def train(
    recipe: str | Path | Recipe | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    data: str | Path,
    validation_data: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = True,
    minutes: float | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
) -> TrainingResult:
    """Train a tokenizer; validate, save and export it at the end.

    Args:
        recipe: name of one that ships with zoo, path of a YAML file, or what else `load_recipe` takes.
        overrides: `{"optimizer.learning_rate": 1e-4}` or `["optimizer.learning_rate=1e-4"]`.
        data: folder of files; where it has `train` and `val` inside, those are training and validation data.
        validation_data: folder of files; None: `val` in `data`, and if there is none, no validation.
        run_dir: folder of the run; None: `runs/` and the tokenizer's name.
        resume: go on from the folder's checkpoint if it has one; if not, start anew in its place.
        minutes: stop after so many, with all that the end of a run brings; a later call goes on.
        accelerator, devices, strategy: Fabric's.

    Raises:
        InputError: recipe, override, loss or folder that cannot be used, or a run of another recipe in `run_dir`.
        UnknownTokenizerError: the recipe's tokenizer is not registered.
        MediaError: a folder without a file that can be read, or a run folder that cannot be written.
        ZooError: a gradient is not finite; the last checkpoint stays.
    """
    started = time.monotonic()
    recipe = load_recipe(recipe, overrides)
    fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=recipe.precision)
    fabric.launch()
    tokenizer = create_tokenizer(recipe)
    folder = RunFolder(run_dir or Path("runs") / tokenizer.spec.name)
    trainer = Trainer(fabric, recipe, tokenizer)
    checkpoint = folder.load(recipe) if resume else None
    if checkpoint is not None:
        trainer.load_state_dict(checkpoint)

    training_folder, validation_folder = data_folders(data, validation_data)
    crops = Crops(Files(training_folder, tokenizer.spec, recipe.data.cache_gib), recipe.data, recipe.seed)
    excerpts = None
    if validation_folder and fabric.is_global_zero:
        files = Files(validation_folder, tokenizer.spec, recipe.data.cache_gib, first=recipe.validation.items)
        excerpts = DataLoader(Excerpts(files, recipe.data), recipe.batch_size)

    batches = training_batches(crops, recipe, trainer.step, fabric.global_rank, fabric.world_size)
    batches = iter(fabric.setup_dataloaders(batches, use_distributed_sampler=False))
    deadline = math.inf if minutes is None else started + 60 * minutes
    if not fabric.is_global_zero:
        while trainer.step < recipe.steps and not fabric.broadcast(False):
            trainer.advance(batches)
        return TrainingResult(folder.path, trainer.step, folder.weights, {})

    folder.start(recipe, trainer.step)
    metrics: dict[str, float] = {}
    with Report(folder, tokenizer.spec, trainer.step, recipe.steps) as report:
        while trainer.step < recipe.steps and not fabric.broadcast(time.monotonic() >= deadline):
            trainer.advance(batches)
            report.advance()
            step, last = trainer.step, trainer.step == recipe.steps
            if step % recipe.log_every == 0 or last:
                report.training(step, trainer.mean_losses(), trainer.learning_rate)
            begun = time.monotonic()
            if step % recipe.checkpoint_every == 0 and not last:
                trainer.check_finite()
                folder.save(trainer.state_dict())
            if excerpts and step % recipe.validation.every == 0 and not last:
                report.validation(step, validate(trainer.averaged, excerpts, recipe.validation.examples))
            report.exclude(time.monotonic() - begun)
        trainer.check_finite()
        folder.save(trainer.state_dict())
        write_weights(trainer.averaged, recipe, trainer.step, folder.weights)
        if excerpts:
            result = validate(trainer.averaged, excerpts, recipe.validation.examples)
            report.validation(trainer.step, result)
            metrics = result.metrics
    return TrainingResult(folder.path, trainer.step, folder.weights, metrics)


class Trainer:
    """Network, averaged network, optimizer and losses, and the step they have reached.

    Every forward pass seeds torch's random generators from the recipe's seed and its own number: a resumed run draws
    what an uninterrupted one would have drawn.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, tokenizer: Tokenizer):
        self.fabric, self.recipe = fabric, recipe
        self.step = 0
        self.losses = WeightedLosses(tokenizer, recipe.losses)
        self.tokenizer = fabric.to_device(tokenizer.train())
        self.averaged = copy.deepcopy(self.tokenizer).eval().requires_grad_(False)
        network = torch.compile(self.tokenizer) if recipe.compile else self.tokenizer
        self.network, self.optimizer = fabric.setup(network, make_optimizer(self.tokenizer, recipe.optimizer))
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._finite = torch.ones((), dtype=torch.bool, device=fabric.device)

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def advance(self, batches: Iterator[Tensor]) -> None:
        """One step of the optimizer."""
        recipe = self.recipe
        rate = learning_rate(self.step, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for number in range(recipe.accumulate):
            original = to_signal(next(batches))
            self._seed(number)
            with self.fabric.no_backward_sync(self.network, enabled=number + 1 < recipe.accumulate):
                values = self.losses(self.network(original), original)
                self.fabric.backward(values["loss"] / recipe.accumulate)
            self._add_losses(values)
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=recipe.optimizer.clip_norm, error_if_nonfinite=False
        )
        self._finite &= norm.isfinite()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        # Early on the average follows fast, so that it is not one of the random start.
        self._average(min(recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step)))

    def _seed(self, number: int) -> None:
        # Behind the loader, which may draw too.
        key = np.random.SeedSequence((self.recipe.seed, self.step, number, self.fabric.global_rank))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        averaged, current = list(self.averaged.parameters()), list(self.tokenizer.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for ours, theirs in zip(self.averaged.buffers(), self.tokenizer.buffers(), strict=True):
            ours.copy_(theirs)

    def _add_losses(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def mean_losses(self) -> dict[str, float]:
        """Losses by name, averaged over the passes since the last call; ZooError as in `check_finite`."""
        self.check_finite()
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def check_finite(self) -> None:
        """ZooError if a gradient of any step so far was not finite."""
        if not self._finite:
            values = ", ".join(f"{name} {float(value):.3g}" for name, value in self._sums.items())
            raise ZooError(
                f"training diverged at or before step {self.step}: a gradient is not finite ({values}); "
                "a lower optimizer.learning_rate or precision=32-true may help; the last checkpoint is kept"
            )

    def state_dict(self) -> dict[str, Any]:
        """All that going on at this step takes."""
        return {
            "step": self.step,
            "tokenizer": self.tokenizer.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.tokenizer.load_state_dict(state["tokenizer"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def make_optimizer(tokenizer: nn.Module, options: Optimizer) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms, gains) do not decay."""
    parameters = [parameter for parameter in tokenizer.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in parameters if parameter.numel() == max(parameter.shape, default=1)]
    others = [parameter for parameter in parameters if parameter.numel() > max(parameter.shape, default=1)]
    groups = [{"params": others}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=options.betas,
        weight_decay=options.weight_decay,
        fused=True,
    )


def learning_rate(step: int, recipe: Recipe) -> float:
    """Of the step with this number, the first being 0."""
    options = recipe.optimizer
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, recipe.steps - options.warmup_steps)
    low, high = options.final_learning_rate, options.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def data_folders(data: str | Path, validation_data: str | Path | None) -> tuple[Path, Path | None]:
    """Folders of training and validation data, as `train` says."""
    data, validation = Path(data), Path(validation_data) if validation_data else None
    if not data.is_dir():
        raise InputError(f"{data}: no such folder")
    if not (data / "train").is_dir():
        return data, validation
    if validation is None and (data / "val").is_dir():
        validation = data / "val"
    return data / "train", validation
