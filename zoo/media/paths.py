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


def media_files(paths: str | Path | Iterable[str | Path], *modalities: str) -> list[Path]:
    """Files and folders to files.

    Args:
        paths: one or several. A file is taken whatever its suffix; of a folder, all files of `modalities` in it
            and below, sorted, without hidden ones.
        modalities: keys of `SUFFIXES`.

    Raises:
        InputError: an unknown modality.
        MediaError: a path that does not exist, or a folder that holds no file of `modalities`.
    """
    for modality in modalities:
        if modality not in SUFFIXES:
            raise InputError(f"expected a modality among {', '.join(SUFFIXES)}, got {modality!r}")
    files = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        if path.is_dir():
            files += _files_below(path, modalities)
        elif path.exists():
            files.append(path)
        else:
            raise MediaError(f"{path}: no such file or folder")
    return files


def _files_below(folder: Path, modalities: tuple[str, ...]) -> list[Path]:
    suffixes = [suffix for modality in modalities for suffix in SUFFIXES[modality]]
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise MediaError(f"{folder}: holds no {' or '.join(modalities)} file ({' '.join(suffixes)})")
    return files
