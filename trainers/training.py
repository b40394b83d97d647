"""`train`: from a recipe and data to weights. Imports torch and Fabric only for a recipe without errors."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo.errors import InputError, shown
from zoo.extras import extra
from zoo.files import named_path
from zoo.trainers.memory import check_batch
from zoo.trainers.reading import load_recipe
from zoo.trainers.recipe import Recipe
from zoo.trainers.result import TrainingResult


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
        recipe: name of a recipe that ships with zoo, path of a YAML file, or anything else that `load_recipe` takes.
        overrides: `{"optimizer.learning_rate": 1e-4}` or `["optimizer.learning_rate=1e-4"]`.
        data: folder of files, WebDataset shards or a data set of the Hub, as `zoo.sources.locations.locate`
            takes it. A folder with `train` and `val` inside holds training and validation data.
        validation_data: as `data`; None: `val` (or `validation`) in `data`, or no validation if there is none.
        run_dir: folder of the run; None: `runs/` and the tokenizer's name.
        resume: whether the run continues from the folder's last checkpoint if there is one; if not, a new run replaces
            the old one.
        minutes: stop after this many minutes; the run is validated, saved and exported, and a later call continues it.
        accelerator, devices, num_nodes, strategy: options of Lightning Fabric. devices and num_nodes None: one process,
            or those that `torchrun` started, on one machine or several that share the run's folder. Each process takes
            `batch_size` items. A tokenizer of which a step leaves parameters unused (dplm2) takes
            "ddp_find_unused_parameters_true" for "ddp". "fsdp" needs GPUs, does not go with
            `adversarial.adaptive_weight` or `teachers`, and shards only the tokenizer, not the discriminators.

    Raises:
        InputError: recipe, override, loss or folder that cannot be used, or a run of another recipe in `run_dir`.
        CheckpointError, WeightsUnavailableError: the recipe's `weights` do not fit or are not at hand.
        UnknownTokenizerError: the recipe's tokenizer is not registered.
        MediaError: a folder without a file that can be read, or a run folder that cannot be written.
        ZooError: a gradient is not finite; the last checkpoint stays. Or a package that training needs is missing.
    """
    if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0):
        raise InputError(f"expected minutes as a number of at least 0, got {shown(minutes)}")
    stop_at = None if minutes is None or math.isinf(minutes) else time.monotonic() + 60 * minutes
    recipe = load_recipe(recipe, overrides)
    check_batch(recipe)
    with extra("train", "training"):
        from zoo.trainers.data.splits import training_and_validation
        from zoo.trainers.loop import launch, run_to_the_end
        from zoo.trainers.run_folder import RunFolder
    training, validation = training_and_validation(data, validation_data)
    default = Path("runs") / zoo.info(recipe.tokenizer).name
    folder = RunFolder(default if run_dir is None else named_path(run_dir, "run_dir"))
    fabric = launch(recipe, accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    return run_to_the_end(fabric, recipe, training, validation, folder, resume=resume, stop_at=stop_at)
