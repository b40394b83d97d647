"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import MediaError


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes `path` when the block ends without an error.

    The temporary file lies in the folder of `path` and has its suffix; an error in the block removes it and
    leaves `path` as it was.

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
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except MediaError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
