"""Folders of training runs."""

import shutil
from pathlib import Path

from zoo.trainers.run_folder import RunFolder


def without_its_last_checkpoint(run_dir: Path, copy: Path) -> Path:
    """A copy of the run as if it had been killed before its end."""
    shutil.copytree(run_dir, copy)
    RunFolder(copy).steps()[-1].unlink()
    return copy
