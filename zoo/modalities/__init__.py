"""Modalities: one object for each, with the axes, layout, checks, padding, files and units of its signals.

`get(name)` is the one place where a modality's name is looked up.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from zoo.errors import InputError, MediaError
from zoo.modalities.base import Batch, Modality, Signal
from zoo.modalities.files import MediaBytes, MediaFile

NAMES = ("image", "audio", "video", "structure")

__all__ = [
    "NAMES",
    "Batch",
    "MediaBytes",
    "MediaFile",
    "Modality",
    "Signal",
    "every",
    "files_below",
    "get",
    "media_files",
    "modality_of",
]

_loaded: dict[str, Modality] = {}


def get(name: str) -> Modality:
    """Return the modality called `name`, in upper or lower case; InputError for any other name."""
    if not isinstance(name, str) or name.lower() not in NAMES:
        raise InputError(f"expected a modality among {', '.join(NAMES)}, got {reprlib.repr(name)}")
    if name not in _loaded:  # by a table: torch.compile, which traces no import, finds a modality that was used before
        _loaded[name] = import_module(f"zoo.modalities.{name.lower()}").MODALITY
    return _loaded[name]


def every() -> list[Modality]:
    """Return all modalities, in the order of `NAMES`."""
    return [get(name) for name in NAMES]


def modality_of(path: str | Path) -> str:
    """Return the name of a file's modality, by its suffix; InputError for an unknown suffix, or what is no path."""
    if not isinstance(path, str | Path):
        raise InputError(f"expected the path of a file, got {reprlib.repr(path)}")
    for modality in every():
        if _is_of(Path(path), modality):
            return modality.name
    known = " ".join(suffix for modality in every() for suffix in modality.suffixes)
    raise InputError(f"{path}: expected a suffix among {known}, got {Path(path).suffix.lower()!r}")


def _is_of(path: Path, modality: Modality) -> bool:
    return bool(path.suffix) and path.name.lower().endswith(modality.suffixes)


def media_files(paths: str | Path | Iterable[str | Path], *modalities: str) -> list[Path]:
    """Return files, and the media files in folders.

    Args:
        paths: one path or several. A file is taken whatever its suffix; of a folder, all files of `modalities` in it
            and in its subfolders are taken, sorted, without hidden ones. Linked folders are followed, each once.
        modalities: names of modalities.

    Raises:
        InputError: an unknown modality.
        MediaError: a path that does not exist, or a folder that holds no file of `modalities`.
    """
    wanted = [get(name) for name in modalities]
    files = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        if path.is_dir():
            files += _files_below(path, wanted)
        elif path.exists():
            files.append(path)
        else:
            raise MediaError(f"{path}: no such file or folder")
    return files


def _files_below(folder: Path, modalities: list[Modality]) -> list[Path]:
    files = sorted(path for path in files_below(folder) if any(_is_of(path, modality) for modality in modalities))
    if not files:
        names = " or ".join(modality.name for modality in modalities)
        suffixes = " ".join(suffix for modality in modalities for suffix in modality.suffixes)
        raise MediaError(f"{folder}: holds no {names} file ({suffixes})")
    return files


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, without hidden ones.

    A linked folder is followed once, and not if it leads back.
    """
    seen: set[Path] = set()
    links: list[Path] = []
    waiting = [folder]
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        real = current.resolve()
        if real in seen or (real in folder.resolve().parents):
            continue
        seen.add(real)
        try:
            inside = sorted(path for path in current.iterdir() if not path.name.startswith("."))
        except OSError as error:
            warnings.warn(f"{current}: cannot be read and is left out: {error.strerror}", stacklevel=5)
            continue
        for path in inside:
            if path.is_file():
                yield path
            elif path.is_dir():
                (links if path.is_symlink() else waiting).append(path)  # links last: a file keeps its own place
