"""The packages that training needs beside those of `import zoo`: the extra `train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import ZooError


@contextmanager
def train_extra() -> Iterator[None]:
    """Context of imports in which a package that is not installed is reported with the command that installs it.

    Raises:
        ZooError: a package is missing. A missing module of zoo itself stays a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "zoo":
            raise
        raise ZooError(f"training needs {error.name}: pip install 'tokenizer-zoo[train]'") from error
