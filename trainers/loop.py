"""The training loop, on Lightning Fabric: reconstruction, the quantizer's losses and discriminators."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch.utils.data import DataLoader

from zoo.errors import InputError
from zoo.loading import load_into
from zoo.metrics import METRICS, Metric
from zoo.trainers.data import Crops, Excerpts, Files, training_batches, training_files, validation_batches
from zoo.trainers.recipe import Recipe, create_tokenizer, load_recipe
from zoo.trainers.report import Report
from zoo.trainers.run import RunFolder, write_weights
from zoo.trainers.sources import training_and_validation
from zoo.trainers.trainer import Trainer
from zoo.trainers.validation import choose_metrics, validate


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
    devices: int | str | None = None,
    num_nodes: int | None = None,
    strategy: str = "auto",
) -> TrainingResult:
    """Train a tokenizer; validate, save and export it at the end.

    Args:
        recipe: name of one that ships with zoo, path of a YAML file, or what else `load_recipe` takes.
        overrides: `{"optimizer.learning_rate": 1e-4}` or `["optimizer.learning_rate=1e-4"]`.
        data: folder of files, WebDataset shards or a data set of the Hub, as `zoo.trainers.sources.locate` takes it.
            Where it has `train` and `val` inside, those are training and validation data.
        validation_data: as `data`; None: `val` (or `validation`) in `data`, and if there is none, no validation.
        run_dir: folder of the run; None: `runs/` and the tokenizer's name.
        resume: go on from the folder's checkpoint if it has one; if not, start anew in its place.
        minutes: stop after so many, with all that the end of a run brings; a later call goes on.
        accelerator, devices, num_nodes, strategy: Fabric's; devices and num_nodes None: one process, or those that
            `torchrun` started, on one machine or several that share the run's folder. Each takes `batch_size` items. A
            tokenizer of which a step leaves parameters unused
            (dplm2) takes "ddp_find_unused_parameters_true" for "ddp". "fsdp" needs GPUs, does not go with
            `adversarial.adaptive_weight` or `teachers`, and spreads the tokenizer alone, not the discriminators.

    Raises:
        InputError: recipe, override, loss or folder that cannot be used, or a run of another recipe in `run_dir`.
        CheckpointError, WeightsUnavailableError: the recipe's `weights` do not fit or cannot be had.
        UnknownTokenizerError: the recipe's tokenizer is not registered.
        MediaError: a folder without a file that can be read, or a run folder that cannot be written.
        ZooError: a gradient is not finite; the last checkpoint stays.
    """
    started = time.monotonic()
    recipe = load_recipe(recipe, overrides)
    started_devices, started_nodes = processes_started()
    fabric = Fabric(
        accelerator=accelerator,
        devices=started_devices if devices is None else devices,
        num_nodes=started_nodes if num_nodes is None else num_nodes,
        strategy=strategy,
        precision=recipe.precision,
    )
    fabric.launch()
    tokenizer = create_tokenizer(recipe)
    metrics = choose_metrics(recipe.validation, tokenizer.spec.modality)
    folder = RunFolder(run_dir or Path("runs") / tokenizer.spec.name)
    checkpoint = folder.load(recipe) if resume else None
    if recipe.weights and checkpoint is None:
        load_into(tokenizer, recipe.tokenizer, recipe.weights)
    trainer = Trainer(fabric, recipe, tokenizer)
    if checkpoint is not None:
        trainer.load_state_dict(checkpoint)
    fabric.barrier()

    training_location, validation_location = training_and_validation(data, validation_data)
    if recipe.validation.best and not validation_location:
        raise InputError("recipe: validation.best needs validation data")
    crops = Crops(training_files(training_location, tokenizer.spec, recipe.data), recipe.data, recipe.seed)
    batches = training_batches(crops, recipe, trainer.step, fabric.global_rank, fabric.world_size)
    batches = iter(fabric.setup_dataloaders(batches, use_distributed_sampler=False))
    excerpts = None
    if validation_location and fabric.is_global_zero:
        files = Files(validation_location, tokenizer.spec, recipe.data, recipe.validation.items)
        excerpts = validation_batches(Excerpts(files, recipe.data), recipe)
    if fabric.is_global_zero:
        folder.start(recipe, trainer.step)
    report = Report(folder, tokenizer.spec, trainer.step, recipe.steps) if fabric.is_global_zero else None
    run = Run(trainer, folder, report, excerpts, metrics, validates=validation_location is not None)
    with report or nullcontext():
        while trainer.step < recipe.steps:
            # The first process decides for all.
            if minutes is not None and fabric.broadcast(time.monotonic() >= started + 60 * minutes):
                break
            trainer.advance(batches)
            run.after_step()
        figures = run.finish()
    return TrainingResult(folder.path, trainer.step, folder.weights, figures)


def processes_started() -> tuple[int, int]:
    """How many a machine and on how many machines: those of `torchrun`, and without it one."""
    if not TorchElasticEnvironment.detect():
        return 1, 1
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


class Run:
    """What happens beside the steps: reports, checkpoints, validation. Every process has one; the first one acts.

    report, excerpts: None on the others. validates: whether there are excerpts, on the first.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        report: Report | None,
        excerpts: DataLoader | None,
        metrics: Sequence[Metric],
        *,
        validates: bool,
    ):
        self.trainer, self.recipe, self.folder = trainer, trainer.recipe, folder
        self.report, self.excerpts, self.metrics, self.validates = report, excerpts, metrics, validates

    def after_step(self) -> None:
        """What is due at the step that the trainer has reached."""
        recipe, step = self.recipe, self.trainer.step
        is_last = step == recipe.steps
        if self.report:
            self.report.advance()
        if step % recipe.log_every == 0 or is_last:
            losses = self.trainer.mean_losses()
            if self.report:
                self.report.training(step, losses, self.trainer.learning_rate)
        begun = time.monotonic()
        if not is_last:
            # The checkpoint comes last: it knows the best so far.
            if self.validates and step % recipe.validation.every == 0:
                self.validate()
            if step % recipe.checkpoint_every == 0:
                self.save()
        if self.report:
            self.report.exclude(time.monotonic() - begun)

    def finish(self) -> dict[str, float]:
        """Validate, save and export; the figures, nothing on other processes than the first."""
        self.trainer.check_finite()
        figures = self.validate() if self.validates else {}
        self.save()
        averaged = self.trainer.averaged()
        if self.report:
            write_weights(averaged, self.recipe, self.trainer.step, self.folder.weights)
        return figures

    def save(self) -> None:
        self.trainer.check_finite()
        state = self.trainer.state_dict()
        if self.report:
            self.folder.save(state, self.recipe.checkpoint_keep)

    def validate(self) -> dict[str, float]:
        """Validate, and save a checkpoint if it is the best; the figures, nothing on other processes than the first."""
        trainer, figures = self.trainer, {}
        averaged = trainer.averaged()
        if self.report:
            result = validate(
                averaged,
                self.excerpts,
                self.metrics,
                examples=self.recipe.validation.examples,
                quantizer_losses=trainer.losses.of_quantizer,
            )
            self.report.validation(trainer.step, result)
            figures = result.metrics
        if self.recipe.validation.best:
            self.keep_best(figures)
        return figures

    def keep_best(self, figures: Mapping[str, float]) -> None:
        trainer, name = self.trainer, self.recipe.validation.best
        value = trainer.fabric.broadcast(figures.get(name))
        best = trainer.best if trainer.best and trainer.best["metric"] == name else None
        sign = 1 if METRICS[trainer.tokenizer.spec.modality][name].higher_is_better else -1
        if math.isnan(value) or (best and sign * value <= sign * best["value"]):
            return
        trainer.best = {"metric": name, "value": value, "step": trainer.step}
        state = trainer.state_dict()
        if self.report:
            self.folder.save_best(state)
