"""The folder of a run: recipe, checkpoints, history, exported weights. Every file in it is whole at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.checkpoints import read_checkpoint
from zoo.errors import InputError
from zoo.files import atomic_path
from zoo.trainers.reading import load_recipe
from zoo.trainers.recipe import Recipe


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
        """The run's recipe; InputError if the folder holds no run."""
        if not self.recipe_file.is_file():
            raise InputError(f"{self.path}: no run here (recipe.yaml is missing)")
        return load_recipe(self.recipe_file)

    def start(self, recipe: Recipe, step: int) -> None:
        """Prepare the folder for a run that has reached `step`: write the recipe and remove what does not belong.

        At step 0 an older run's checkpoints are removed first, so that they are not taken for this run's. The history
        after `step` is removed too, since a resumed run writes it again.
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
        """The checkpoints `step-NNNNNNNN.pt`, oldest first."""
        return sorted(self.checkpoints.glob("step-*.pt"))

    def save(self, checkpoint: Mapping[str, Any], keep: int) -> None:
        """Write `checkpoint` as the run's last, and keep only the last `keep`."""
        self._write(checkpoint, self.checkpoints / f"step-{checkpoint['step']:08}.pt")
        for older in self.steps()[:-keep]:
            older.unlink()

    def save_best(self, checkpoint: Mapping[str, Any]) -> None:
        """Write `checkpoint` as the run's best."""
        self._write(checkpoint, self.best)

    def _write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        with atomic_path(path, overwrite=True) as temporary:
            torch.save(dict(checkpoint), temporary)

    def load(self, recipe: Recipe, *, best: bool = False) -> Mapping[str, Any] | None:
        """The run's last or best checkpoint; None if there is none yet.

        Raises:
            InputError: the run was made with a recipe that differs in values that shape the weights.
            CheckpointError: a file that is not a checkpoint.
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
        """Append an entry to the history."""
        with open(self.history_file, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The logged entries `{"step", "training" or "validation": {name: value}}`, oldest first."""
        if not self.history_file.is_file():
            return []
        return [json.loads(line) for line in self.history_file.read_text().splitlines() if line.endswith("}}")]
