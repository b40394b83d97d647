"""The packages that a part of zoo needs beside those of `import zoo`: the extras of `pip install`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import ZooError


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Context of imports in which a package that is not installed is reported with the command that installs it.

    Args:
        name: name of the extra. purpose: what needs the package, such as "training".

    Raises:
        ZooError: a package is missing. A missing module of zoo itself stays a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "zoo":
            raise
        raise ZooError(f"{purpose} needs {error.name}: pip install 'tokenizer-zoo[{name}]'") from error
