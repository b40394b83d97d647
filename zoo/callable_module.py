"""Modules that can be called like the function of their name: `zoo.bench(...)`, beside `zoo.bench.runner`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module whose call is that of its function of the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(module: str) -> None:
    """Let the imported module of this name, as `zoo.bench`, be called like its function `bench`."""
    sys.modules[module].__class__ = CallableModule
