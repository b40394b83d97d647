"""The files of a benchmark: which of them are used, and how their signals are read."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo import media
from zoo.bench.cache import file_sha256
from zoo.bench.signals import Preprocessing
from zoo.errors import MediaError, as_zoo_error
from zoo.modalities import Signal

CLIP = "#"  # between the path of a file and the number of its clip


@dataclass(frozen=True)
class DataFile:
    """One file of the data, or one clip of it.

    source: its path relative to the data folder, with `#` and the number of the clip where files are cut into clips.
    clip: that number, from 0; None: the whole file.
    """

    path: Path
    source: str
    sha256: str
    clip: int | None = None

    @property
    def key(self) -> list[Any]:
        """What distinguishes the signal from others in the cache."""
        return [self.sha256, self.clip]


class DataFolder:
    """The files of a folder, or a single file.

    Attributes:
        folder: folder that the paths of the files are relative to.
        name: name of the data in the results.

    Args:
        data: folder or file.
        preprocessing: form that files are brought to.
        limit: number of files, the first by name; None: all.

    Raises:
        MediaError: no such folder, or no file of the modality in it.
    """

    def __init__(self, data: Path, preprocessing: Preprocessing, limit: int | None):
        self.folder = folder_of(data)
        self.name = data.name if data.is_absolute() or ".." in data.parts else data.as_posix()
        self.preprocessing = preprocessing
        self.paths = media.media_files(data, preprocessing.modality)[:limit]
        self._clips = functools.lru_cache(maxsize=1)(lambda path: preprocessing.clips(preprocessing.load(path)))

    def files(self) -> tuple[list[DataFile], dict[str, str], dict[str, str]]:
        """Return the files that are used, those that cannot be read and those that are excluded, with the reasons."""
        used: list[DataFile] = []
        damaged: dict[str, str] = {}
        excluded: dict[str, str] = {}
        for path in self.paths:
            source = path.relative_to(self.folder).as_posix()
            try:
                file = DataFile(path, source, file_sha256(path))
            except MediaError as error:
                damaged[source] = str(error)
                continue
            if not self.preprocessing.looks_at_files:
                used.append(file)
                continue
            try:
                reason = self.preprocessing.exclusion(self.load(file))
                clips = len(self._clips(path)) if self.preprocessing.frames is not None else None
            except Exception as error:  # whatever a damaged file raises
                damaged[source] = str(as_zoo_error(error))
                continue
            if reason is not None:
                excluded[source] = reason
            elif clips is None:
                used.append(file)
            else:
                used += [DataFile(path, f"{source}{CLIP}{clip}", file.sha256, clip) for clip in range(clips)]
        return used, damaged, excluded

    def load(self, file: DataFile) -> Signal:
        """Read the signal of a file or a clip; MediaError or InputError as the modality raises them."""
        return self.preprocessing.load(file.path) if file.clip is None else self._clips(file.path)[file.clip]

    def facts(self, files: Sequence[DataFile]) -> dict[str, Any]:
        """Return what `Results.data` has about the files that were used."""
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.source} {file.sha256}\n".encode())
        preprocessing = asdict(self.preprocessing)
        del preprocessing["modality"]
        return {"name": self.name, "files": len(files), "sha256": digest.hexdigest(), "preprocessing": preprocessing}


def folder_of(data: Path) -> Path:
    """Return the folder that sources are relative to."""
    return data if data.is_dir() else data.parent


def original(folder: Path, source: str, preprocessing: Preprocessing) -> Signal:
    """Read the signal that an item's `source` names."""
    if preprocessing.frames is None:
        return preprocessing.load(folder / source)
    name, _, clip = source.rpartition(CLIP)
    return preprocessing.clips(preprocessing.load(folder / name))[int(clip)]


def portable(text: str, folder: Path) -> str:
    """Return `text` without the data folder's path and with `~` for the home folder, since results are shared."""
    return text.replace(f"{folder}{os.sep}", "").replace(str(Path.home()), "~")
