"""Paths that a user names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.trainers.conversion import shown


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
