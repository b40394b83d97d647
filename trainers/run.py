"""The folder of a run: recipe, checkpoint, history, exported weights. Nothing in it is ever half written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints import read_checkpoint, write_checkpoint
from zoo.errors import InputError
from zoo.files import atomic_path
from zoo.saved import configuration
from zoo.tokenizer import Tokenizer
from zoo.trainers.recipe import Recipe, create_tokenizer, load_recipe


class RunFolder:
    """`recipe.yaml`, `checkpoints/`, `history.jsonl`, `tensorboard/` and `weights.safetensors` of one run.

    Checkpoints are `step-NNNNNNNN.pt`, the last few, and `best.pt`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.pt"
        self.recipe_file = self.path / "recipe.yaml"
        self.history_file = self.path / "history.jsonl"
        self.weights = self.path / "weights.safetensors"

    def recipe(self) -> Recipe:
        """InputError where the folder holds no run."""
        if not self.recipe_file.is_file():
            raise InputError(f"{self.path}: no run here (recipe.yaml is missing)")
        return load_recipe(self.recipe_file)

    def start(self, recipe: Recipe, step: int) -> None:
        """Make the folder that of a run which stands at `step`.

        At step 0 an older run's checkpoints go first: they must not be taken for ones of this recipe. History behind
        `step`, which a resumed run writes again, goes too.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for left_by_a_killed_run in self.checkpoints.glob(".*.pt"):
            left_by_a_killed_run.unlink()
        if step == 0:
            for checkpoint in (*self.steps(), self.best):
                checkpoint.unlink(missing_ok=True)
        with atomic_path(self.recipe_file, overwrite=True) as temporary:
            temporary.write_text(recipe.to_yaml())
        kept = [entry for entry in self.history() if entry["step"] <= step] if step else []
        with atomic_path(self.history_file, overwrite=True) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

    def steps(self) -> list[Path]:
        """The checkpoints of steps, oldest first."""
        return sorted(self.checkpoints.glob("step-*.pt"))

    def save(self, checkpoint: Mapping[str, Any], keep: int) -> None:
        """Make `checkpoint` the run's last, and keep that many of the last."""
        self._write(checkpoint, self.checkpoints / f"step-{checkpoint['step']:08}.pt")
        for older in self.steps()[:-keep]:
            older.unlink()

    def save_best(self, checkpoint: Mapping[str, Any]) -> None:
        """Make `checkpoint` the run's best."""
        self._write(checkpoint, self.best)

    def _write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        with atomic_path(path, overwrite=True) as temporary:
            torch.save(dict(checkpoint), temporary)

    def load(self, recipe: Recipe, *, best: bool = False) -> Mapping[str, Any] | None:
        """The run's last or best checkpoint, None where there is none yet.

        Raises:
            InputError: the run was made with a recipe that differs in what shapes the weights.
            CheckpointError: a file that is no checkpoint.
        """
        paths = [self.best] if best else self.steps()[-1:]
        if not paths or not paths[0].is_file():
            return None
        theirs, ours = self.recipe().shaping(), recipe.shaping()
        changed = [key for key in theirs | ours if theirs.get(key) != ours.get(key)]
        if changed:
            differences = ", ".join(f"{key}: {theirs.get(key)!r}, now {ours.get(key)!r}" for key in changed[:5])
            raise InputError(f"{self.path}: holds a run of another recipe ({differences}); name another folder")
        return read_checkpoint(paths[0])

    def add_history(self, entry: Mapping[str, Any]) -> None:
        with open(self.history_file, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """What was logged: `{"step", "training" or "validation": {name: value}}`, oldest first."""
        if not self.history_file.is_file():
            return []
        return [json.loads(line) for line in self.history_file.read_text().splitlines() if line.endswith("}}")]


def export(run: str | Path, path: str | Path | None = None, *, best: bool = False) -> Path:
    """Write a run's averaged weights, in float16 where it holds them, as a file that `zoo.load` reads.

    Integers and booleans are kept as they are; a tensor that float16 would not hold (running sums beyond 65504)
    stays float32. Beside what describes the tokenizer, the metadata have its name (`tokenizer`), the recipe's
    digest (`recipe`) and the steps (`steps`).

    Args:
        run: folder of the run.
        path: the safetensors file, in a folder that exists; None: `weights.safetensors` in the run's.
        best: those of the best checkpoint (`validation.best`) instead of the last.

    Raises:
        InputError: no run, or none that has saved such a checkpoint.
        MediaError: a file that cannot be written.
    """
    folder = RunFolder(run)
    recipe = folder.recipe()
    checkpoint = folder.load(recipe, best=best)
    if checkpoint is None:
        raise InputError(f"{run}: the run has saved no {'best ' if best else ''}checkpoint yet")
    tokenizer = create_tokenizer(recipe)
    tokenizer.load_state_dict(checkpoint["averaged"])
    return write_weights(tokenizer, recipe, checkpoint["step"], Path(path or folder.weights))


def write_weights(tokenizer: Tokenizer, recipe: Recipe, step: int, path: Path) -> Path:
    """What `export` does with a tokenizer at hand."""
    metadata = {
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in configuration(tokenizer).items()},
        "tokenizer": tokenizer.spec.name,
        "recipe": recipe.digest,
        "steps": str(step),
    }
    with atomic_path(path, overwrite=True) as temporary:
        write_checkpoint(temporary, {key: halved(value) for key, value in tokenizer.state_dict().items()}, metadata)
    return path


def halved(value: Tensor) -> Tensor:
    """`value` in float16 if that is right to 2^-10 of its greatest entry, else as it is; on the CPU."""
    value = value.detach().cpu()
    if not value.is_floating_point() or value.numel() == 0:
        return value
    half = value.half()
    error, greatest = (half.float() - value.float()).abs().max(), value.abs().max()
    return half if error <= 2**-10 * greatest else value
