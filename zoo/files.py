"""Paths that a user names, and writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import InputError, MediaError, shown

if sys.platform != "win32":
    import fcntl

PREFIX = ".zoo-"  # of temporary files


def named_path(path: Any, what: str) -> Path:
    """Return `path` as a `Path`; InputError, in which `what` names it, for another type or text that is no path."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputError(f"expected {what} as a path, got {shown(path)}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"expected {what} as a path, got {shown(text)}")
    try:
        os.stat(text)
    except FileNotFoundError:
        pass  # what is not there yet may be a run's folder
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a folder that may not be entered
        raise InputError(f"{what} {shown(text)}: {getattr(error, 'strerror', None) or error}") from error
    return Path(text)


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes `path` when the block ends without an error.

    The temporary file lies in the folder of `path` and has its suffix; an error in the block removes it and
    leaves `path` as it was. What a killed process leaves, `remove_leftovers` removes.

    Args:
        path: path of the file, in a folder that exists.
        overwrite: whether an existing file is replaced.

    Raises:
        MediaError: `path` exists and `overwrite` is false, or an OSError in the block (disk full, no
            permission, no such folder), with its reason.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise MediaError(f"{path}: exists already; overwrite=True replaces it")
    temporary = path.with_name(f"{PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        with temporary.open("wb") as file:
            locked(file)
            yield temporary
            os.replace(temporary, path)
    except MediaError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which becomes `path` when the block ends without an error.

    It replaces a folder that is there. Where it lies, what an error leaves, and errors are as in `atomic_path`.
    """
    temporary = path.with_name(f"{PREFIX}{secrets.token_hex(8)}")
    try:
        temporary.mkdir()
        with _locked_folder(temporary):
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    except MediaError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that no process writes any more: those of processes that were killed."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            if path.is_dir():
                with _locked_folder(path) as ours:
                    if ours:
                        shutil.rmtree(path)
            else:
                with path.open("rb") as file:
                    if locked(file):
                        path.unlink()
        except OSError:  # another process was faster, or it is not ours to remove; it is in nobody's way
            continue


@contextmanager
def _locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder, as `locked` does a file, and yield whether it could be."""
    if sys.platform == "win32":  # which opens no folders
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield locked(descriptor)
    finally:
        os.close(descriptor)


def locked(file: BinaryIO | int) -> bool:
    """Lock a file as long as it is open; return False where another process has, or the system knows no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
