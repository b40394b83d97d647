"""The package's modules as text and syntax trees, read without importing any."""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

FOLDERS = {"zoo": "zoo", "models": "zoo.models", "trainers": "zoo.trainers"}  # zoo/models is a link to models


@dataclass(frozen=True)
class Import:
    """One imported module or name.

    module: where it is imported from. name: what is taken from there; None: the module itself.
    alias: how it is called here. deferred: whether the import is in a function.
    """

    module: str
    name: str | None
    alias: str
    deferred: bool
    line: int


@dataclass(frozen=True, eq=False)
class Module:
    name: str
    path: Path
    text: str

    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imports(self) -> list[Import]:
        """All imports but those for type checkers alone."""
        return list(_imports(self.tree(), deferred=False))


@cache
def modules() -> dict[str, Module]:
    """The package's modules by name, each counted once."""
    found = {}
    for folder, package in FOLDERS.items():
        for where, _, names in os.walk(ROOT / folder):
            for path in (Path(where) / name for name in names if name.endswith(".py")):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                name = ".".join((package, *parts)).removesuffix(".__init__")
                found[name] = Module(name, path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def imported_module(entry: Import) -> str | None:
    """The module of the package that an import names; None for one from elsewhere."""
    if entry.module.partition(".")[0] != "zoo":
        return None
    whole = f"{entry.module}.{entry.name}"
    return whole if whole in modules() else entry.module


def _imports(node: ast.AST, deferred: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, None, alias.asname or alias.name.partition(".")[0], deferred, node.lineno)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield Import(node.module or "", alias.name, alias.asname or alias.name, deferred, node.lineno)
    inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, inside)
