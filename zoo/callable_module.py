"""Modules that can be called like the function of their name: `zoo.bench(...)`, beside `zoo.bench.runner`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that can be called like the function in it that has the module's name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(module: str) -> None:
    """Let an imported module, such as `zoo.bench`, be called like its function of that name (`bench`)."""
    sys.modules[module].__class__ = CallableModule
