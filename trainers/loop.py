"""The training loop, on Lightning Fabric: steps, logs, validation and checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.errors import InputError, ZooError, shown
from zoo.loading import load_into
from zoo.metrics import METRICS, Metric
from zoo.sources.locations import Location
from zoo.trainers.building import create_tokenizer
from zoo.trainers.data.batches import Crops, Excerpts, training_batches, validation_batches
from zoo.trainers.data.signals import Signals, training_signals
from zoo.trainers.exporting import write_weights
from zoo.trainers.recipe import Recipe
from zoo.trainers.result import TrainingResult
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer
from zoo.trainers.training_log import TrainingLog
from zoo.trainers.validation import choose_metrics, validate

MOST_PROCESSES = 4096  # on one machine; there may be as many machines


def launch(
    recipe: Recipe, *, accelerator: str, devices: int | str | None, num_nodes: int | None, strategy: str
) -> Fabric:
    """Fabric with its processes started; the options are those of `zoo.trainers.train`."""
    started_devices, started_nodes = processes_started()
    devices = started_devices if devices is None else devices
    num_nodes = started_nodes if num_nodes is None else num_nodes
    given = f"accelerator={shown(accelerator)}, devices={shown(devices)}, num_nodes={shown(num_nodes)}"
    for option in (devices, num_nodes):
        if str(option).isdigit() and int(option) > MOST_PROCESSES:
            raise InputError(f"expected at most {MOST_PROCESSES} processes, got {given}")
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=recipe.precision,
        )
    except Exception as error:  # Fabric, torch and plug-ins raise errors of many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"{given} and strategy={shown(strategy)} cannot be used: {reason}") from error
    fabric.launch()
    return fabric


def processes_started() -> tuple[int, int]:
    """Number of processes on a machine, and number of machines: those of `torchrun`; without it one process."""
    if not TorchElasticEnvironment.detect():
        return 1, 1
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def run_to_the_end(
    fabric: Fabric,
    recipe: Recipe,
    training: Location,
    validation: Location | None,
    folder: RunFolder,
    *,
    resume: bool,
    stop_at: float | None,
) -> TrainingResult:
    """Train on the processes of `fabric`; validate, save and export at the end.

    Args:
        training, validation: as `training_and_validation` returns them. resume: as in `zoo.trainers.train`.
        stop_at: time of `time.monotonic` after which no step begins; None: all steps of the recipe are done.
    """
    if recipe.validation.best and not validation:
        raise InputError("recipe: validation.best needs validation data")
    with folder.locked() if fabric.is_global_zero else nullcontext():
        tokenizer = create_tokenizer(recipe)
        spec = tokenizer.spec
        metrics = choose_metrics(recipe.validation, tokenizer)
        checkpoint = folder.load(recipe) if resume else None
        if recipe.weights and checkpoint is None:
            load_into(tokenizer, recipe.tokenizer, recipe.weights)
        trainer = Trainer(fabric, recipe, tokenizer)
        if checkpoint is not None:
            trainer.load_state_dict(checkpoint)
        fabric.barrier()

        crops = Crops(training_signals(training, spec, recipe.data), recipe.data, recipe.seed)
        own_batches = training_batches(crops, recipe, trainer.step, fabric.global_rank, fabric.world_size)
        loader = fabric.setup_dataloaders(own_batches, use_distributed_sampler=False)
        assert not isinstance(loader, list)  # as it would be for several
        batches = iter(loader)
        excerpts = None
        if validation and fabric.is_global_zero:
            signals = Signals(validation, spec, recipe.data, recipe.validation.items)
            excerpts = validation_batches(Excerpts(signals, recipe.data), recipe)
        if fabric.is_global_zero:
            folder.start(recipe, trainer.step)
        log = TrainingLog(folder, recipe, spec, trainer.step) if fabric.is_global_zero else None
        bookkeeper = Bookkeeper(trainer, folder, log, excerpts, metrics, validates=validation is not None)
        begun = trainer.step
        with log or nullcontext():
            while trainer.step < recipe.steps:
                # The first process decides for all.
                if stop_at is not None and fabric.broadcast(time.monotonic() >= stop_at):
                    break
                advance(trainer, batches, is_first=trainer.step == begun)
                bookkeeper.after_step()
            figures = bookkeeper.finish()
        return TrainingResult(folder.path, trainer.step, folder.weights, figures)


def advance(trainer: Trainer, batches: Iterator[Tensor], *, is_first: bool) -> None:
    """Take a step; `is_first`: whether the recipe's sizes have not been tried together before.

    Raises:
        ZooError: training has diverged, which networks may notice before the losses are checked; there is too little
            memory; or a process that reads data has died.
        InputError: the first step cannot be computed.
    """
    recipe, step = trainer.recipe, trainer.step + 1
    try:
        trainer.advance(batches)
    except Exception as error:
        if (divergence := trainer.divergence()) is not None:
            raise divergence from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            raise ZooError(
                f"step {step}: out of memory ({reason}); a smaller batch_size with a greater accumulate, smaller "
                f"crops or a smaller config need less than this recipe (batch_size={recipe.batch_size})"
            ) from error
        if "DataLoader worker" in str(error):
            raise ZooError(f"step {step}: a process that reads data has died ({reason}); try data.workers=0") from error
        if is_first and not isinstance(error, ZooError):
            raise InputError(
                f"recipe: the first step cannot be computed ({reason}); do data, losses, config and spec go together?"
            ) from error
        raise


class Bookkeeper:
    """Logs, validates and saves a run between its steps.

    Every process has one and must call its methods; only the first process writes.

    Args:
        log, excerpts: None on all processes but the first, and `excerpts` on the first without validation data.
        metrics: as `choose_metrics` returns them. validates: whether the first process has excerpts.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        log: TrainingLog | None,
        excerpts: DataLoader | None,
        metrics: Sequence[Metric],
        *,
        validates: bool,
    ):
        self.trainer, self.recipe, self.folder = trainer, trainer.recipe, folder
        self.log, self.excerpts, self.metrics, self.validates = log, excerpts, metrics, validates

    def after_step(self) -> None:
        """Log, validate and save what is due at the step that the trainer has reached."""
        recipe, step = self.recipe, self.trainer.step
        is_last = step == recipe.steps
        if self.log:
            self.log.advance()
        if step % recipe.log_every == 0 or is_last:
            losses = self.trainer.mean_losses()
            if self.log:
                self.log.training(step, losses, self.trainer.learning_rate)
        begun = time.monotonic()
        if not is_last:
            # The checkpoint comes last, since it holds the best value so far.
            if self.validates and step % recipe.validation.every == 0:
                self.validate()
            if step % recipe.checkpoint_every == 0:
                self.save()
        if self.log:
            self.log.exclude(time.monotonic() - begun)

    def finish(self) -> dict[str, float]:
        """Validate, save and export; return the metrics by name, which are empty on all processes but the first."""
        self.trainer.check_finite()
        figures = self.validate() if self.validates else {}
        self.save()
        averaged = self.trainer.averaged()
        if self.log:
            write_weights(averaged, self.recipe, self.trainer.step, self.folder.weights)
        return figures

    def save(self) -> None:
        """Write a checkpoint."""
        self.trainer.check_finite()
        state = self.trainer.state_dict()
        if self.log:
            self.folder.save(state, self.recipe.checkpoint_keep)

    def validate(self) -> dict[str, float]:
        """Validate, and save a checkpoint if it is the best; return the metrics by name, as in `finish`."""
        self.trainer.check_finite()
        trainer = self.trainer
        figures: dict[str, float] = {}
        averaged = trainer.averaged()
        if self.log and self.excerpts is not None:
            result = validate(
                averaged,
                self.excerpts,
                self.metrics,
                examples=self.recipe.validation.examples,
                quantizer_losses=trainer.losses.of_quantizer,
            )
            self.log.validation(trainer.step, result)
            figures = result.metrics
        if best := self.recipe.validation.best:
            # The first process decides for all.
            self.keep_best(best, trainer.fabric.broadcast(figures.get(best, math.nan)))
        return figures

    def keep_best(self, metric: str, value: float) -> None:
        """Save a checkpoint if `value` of this metric is the best so far."""
        trainer = self.trainer
        best = trainer.best if trainer.best and trainer.best["metric"] == metric else None
        sign = 1 if METRICS[trainer.tokenizer.spec.modality][metric].higher_is_better else -1
        if math.isnan(value) or (best and sign * value <= sign * best["value"]):
            return
        trainer.best = {"metric": metric, "value": value, "step": trainer.step}
        state = trainer.state_dict()
        if self.log:
            self.folder.save_best(state)
