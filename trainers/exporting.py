"""A run's weights as a file that zoo loads and pushes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from zoo.checkpoints import check_state, write_checkpoint
from zoo.errors import InputError
from zoo.files import atomic_path, named_path
from zoo.saved import as_metadata, configuration
from zoo.tokenizer import Tokenizer
from zoo.trainers.building import create_tokenizer
from zoo.trainers.recipe import Recipe
from zoo.trainers.run_folder import RunFolder


def export(run: str | Path, path: str | Path | None = None, *, best: bool = False) -> Path:
    """Write a run's averaged weights, in float16, as a file that `zoo.load` reads.

    Integers and booleans are kept, and so is a tensor that float16 cannot hold (running sums beyond 65504): it stays
    float32. The metadata describe the tokenizer and have its name (`tokenizer`), the recipe's digest (`recipe`) and the
    number of steps (`steps`).

    Args:
        run: folder of the run.
        path: the safetensors file, in a folder that exists; None: `weights.safetensors` in the run's folder.
        best: whether the weights are those of the best checkpoint (`validation.best`) instead of the last.

    Returns:
        Path of the file.

    Raises:
        InputError: no run, or one that has not saved such a checkpoint.
        CheckpointError: a checkpoint that is not the run's.
        MediaError: a file that cannot be written.
    """
    folder = RunFolder(named_path(run, "run"))
    target = folder.weights if path is None else named_path(path, "path")
    recipe = folder.recipe()
    checkpoint = folder.load(recipe, best=best)
    if checkpoint is None:
        raise InputError(f"{run}: the run has saved no {'best ' if best else ''}checkpoint yet")
    tokenizer = create_tokenizer(recipe)
    check_state(checkpoint["averaged"], tokenizer.state_dict(), f"{folder.path}: its checkpoint")
    tokenizer.load_state_dict(checkpoint["averaged"])
    return write_weights(tokenizer, recipe, checkpoint["step"], target)


def write_weights(tokenizer: Tokenizer, recipe: Recipe, step: int, path: Path) -> Path:
    """Write a tokenizer's weights as `export` does; `step` is the number of steps that it was trained."""
    return write_halved(tokenizer, path, recipe=recipe.digest, steps=str(step))


def write_halved(tokenizer: Tokenizer, path: Path, **facts: str) -> Path:
    """Write a tokenizer's weights in float16, with `facts` beside what describes it in the metadata."""
    metadata = {**as_metadata(configuration(tokenizer)), "tokenizer": tokenizer.spec.name, **facts}
    with atomic_path(path, overwrite=True) as temporary:
        write_checkpoint(temporary, {key: halved(value) for key, value in tokenizer.state_dict().items()}, metadata)
    return path


def halved(value: Tensor) -> Tensor:
    """`value` in float16 if its error is at most 2^-10 of the greatest entry, else unchanged; on the CPU."""
    value = value.detach().cpu()
    if not value.is_floating_point() or value.numel() == 0:
        return value
    half = value.half()
    error, greatest = (half.float() - value.float()).abs().max(), value.abs().max()
    return half if error <= 2**-10 * greatest else value
