"""The folder of a run: recipe, checkpoints, history, exported weights. Every file in it is whole at any time."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zoo.checkpoints import read_checkpoint
from zoo.errors import CheckpointError, InputError, MediaError
from zoo.files import atomic_path, remove_leftovers
from zoo.trainers.reading import load_recipe
from zoo.trainers.recipe import Recipe

if sys.platform != "win32":
    import fcntl


class RunFolder:
    """`recipe.yaml`, `checkpoints/`, `history.jsonl`, `tensorboard/` and `weights.safetensors` of one run.

    Checkpoints are `step-NNNNNNNN.pt`, the last few, and `best.pt`. `lock` is locked by the process that trains.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.pt"
        self.recipe_file = self.path / "recipe.yaml"
        self.history_file = self.path / "history.jsonl"
        self.weights = self.path / "weights.safetensors"
        self.lock_file = self.path / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which no other process trains in this folder.

        The kernel holds the lock and releases it when the process ends, however it ends, even if processes that read
        its data live on for a while. A folder that was made for the lock and holds nothing else is removed again.

        Raises:
            InputError: another process trains here.
            MediaError: the folder cannot be made or written to.
        """
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise MediaError(f"{self.path}: cannot hold a run: {error.strerror}") from error
        with open(descriptor, "r+", errors="replace") as file:
            try:
                if sys.platform != "win32":
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                other = file.read(200).strip() or "another process"
                raise InputError(
                    f"{self.path}: {other} is training here; wait until it ends, or name another folder"
                ) from None
            except OSError as error:
                raise MediaError(f"{self.lock_file}: cannot be locked: {error.strerror}") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                if is_new and os.listdir(self.path) == [self.lock_file.name]:
                    self.lock_file.unlink()
                    self.path.rmdir()

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
        for folder in (self.path, self.checkpoints):  # of a run or an export that was killed
            remove_leftovers(folder)
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
        checkpoint = self._read_best() if best else self._read_last()
        if checkpoint is None:
            return None
        theirs, ours = self.recipe().shaping(), recipe.shaping()
        changed = [key for key in theirs | ours if theirs.get(key) != ours.get(key)]
        if changed:
            differences = ", ".join(f"{key}: {theirs.get(key)!r}, now {ours.get(key)!r}" for key in changed[:5])
            raise InputError(f"{self.path}: holds a run of another recipe ({differences}); name another folder")
        return checkpoint

    def _read_best(self) -> Mapping[str, Any] | None:
        return read_run(self.best) if self.best.is_file() else None

    def _read_last(self) -> Mapping[str, Any] | None:
        # A trainer that runs at the same time may remove a checkpoint, but writes a later one before.
        while paths := self.steps():
            try:
                return read_run(paths[-1])
            except CheckpointError:
                if paths[-1].is_file():
                    raise
        return None

    def add_history(self, entry: Mapping[str, Any]) -> None:
        """Append an entry to the history."""
        with open(self.history_file, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The logged entries `{"step", "training" or "validation": {name: value}}`, oldest first."""
        if not self.history_file.is_file():
            return []
        entries = []
        for number, line in enumerate(self.history_file.read_text(errors="replace").splitlines(), 1):
            if line.endswith("}}"):  # the last line of a killed run may not be whole
                try:
                    entry = json.loads(line)
                    int(entry["step"])
                except (ValueError, LookupError, TypeError, RecursionError):
                    raise InputError(f"{self.history_file}: line {number} is not an entry of a run") from None
                entries.append(entry)
        return entries


def read_run(path: Path) -> Mapping[str, Any]:
    """A checkpoint of a run; CheckpointError for a file that is none."""
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint.get("step"), int) or not {"tokenizer", "averaged"} <= checkpoint.keys():
        raise CheckpointError(f"{path}: not a checkpoint of a training run")
    return checkpoint
