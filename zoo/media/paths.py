"""Which files are images, sound, video or structures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zoo.errors import InputError, MediaError

SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff"),
    "video": (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v"),
    "structure": (".pdb", ".ent", ".cif", ".mmcif", ".bcif"),
}


def modality_of(path: str | Path) -> str:
    """`image`, `audio`, `video` or `structure`, by the file's suffix; InputError for any other."""
    suffix = Path(path).suffix.lower()
    for modality, suffixes in SUFFIXES.items():
        if suffix in suffixes:
            return modality
    known = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise InputError(f"{path}: expected a suffix among {known}, got {suffix!r}")


def media_files(paths: str | Path | Iterable[str | Path], modality: str) -> list[Path]:
    """Files and folders to files.

    Args:
        paths: one or several. A file is taken whatever its suffix; of a folder, all files of `modality` in it
            and below, sorted, without hidden ones.
        modality: a key of `SUFFIXES`.

    Raises:
        InputError: an unknown modality.
        MediaError: a path that does not exist, or a folder that holds no file of `modality`.
    """
    if modality not in SUFFIXES:
        raise InputError(f"expected a modality among {', '.join(SUFFIXES)}, got {modality!r}")
    files = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        if path.is_dir():
            files += _files_below(path, modality)
        elif path.exists():
            files.append(path)
        else:
            raise MediaError(f"{path}: no such file or folder")
    return files


def _files_below(folder: Path, modality: str) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES[modality]
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise MediaError(f"{folder}: holds no {modality} file ({' '.join(SUFFIXES[modality])})")
    return files
