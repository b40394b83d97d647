"""Files of a folder as WebDataset shards, and as a data set of Hugging Face's `datasets`."""

from pathlib import Path
from types import ModuleType
from typing import Any

import webdataset


def to_shards(folder: Path, pattern: str, samples_each: int = 4) -> None:
    """The files of a folder as shards with a label beside each; pattern: with `{}` for the shard's number."""
    files = sorted(folder.iterdir())
    for number, start in enumerate(range(0, len(files), samples_each)):
        Path(pattern).parent.mkdir(parents=True, exist_ok=True)
        with webdataset.TarWriter(pattern.format(number)) as writer:
            for file in files[start : start + samples_each]:
                writer.write({"__key__": file.stem, "cls": 7, file.suffix[1:]: file.read_bytes()})


def to_table(datasets: ModuleType, folder: Path, kind: str | None) -> Any:
    """The files of a folder as a data set with the columns `media` (of that type of `datasets`) and `label`."""
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(folder.iterdir())]
    rows = datasets.Dataset.from_dict({"label": list(range(len(cells))), "media": cells})
    return rows.cast_column("media", getattr(datasets, kind)(decode=False)) if kind else rows
