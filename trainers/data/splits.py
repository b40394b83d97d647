"""Which of a user's data are trained on, and which validated with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zoo.files import named_path
from zoo.sources.locations import Location, locate
from zoo.sources.places import is_remote
from zoo.sources.tables import Table, load_table


def training_and_validation(
    data: str | Path, validation_data: str | Path | None = None
) -> tuple[Location, Location | None]:
    """Find a run's training data and validation data; None: no validation data.

    Args:
        data: as in `locate`. A folder with `train` inside stands for that, and its `val` or `validation` for the
            validation data; a table without a split stands for its "train", and its "validation" or "val" for the
            validation data.
        validation_data: as in `locate`, in place of validation data that `data` holds.

    Raises:
        InputError: as in `locate`, or a table that cannot be loaded.
    """
    validation: Location | None = None
    if not str(data).startswith("hf:") and not is_remote(data) and (named_path(data, "data") / "train").is_dir():
        folder = Path(data)
        training = locate(folder / "train")
        validation = next((locate(folder / name) for name in ("val", "validation") if (folder / name).is_dir()), None)
    else:
        training = locate(data)
        if isinstance(training, Table) and training.split is None and validation_data is None:
            splits = load_table(training)
            names = [name for name in ("validation", "val") if isinstance(splits, dict) and name in splits]
            validation = replace(training, split=names[0]) if names else None
    return training, validation if validation_data is None else locate(validation_data)
