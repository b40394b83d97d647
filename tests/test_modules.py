"""What holds of every module's text: imports without a circle and declared, no private name of another file."""

import ast
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest

from tests.support.modules import Module, imported_module, modules
from tests.support.paths import ROOT
from zoo import modalities

MOST_LINES = 500
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Imports


@pytest.mark.parametrize("deferred", [False, True], ids=["at the top", "anywhere"])
def test_no_module_imports_itself_through_others(deferred):
    graph = {
        name: {
            target
            for entry in module.imports()
            if (deferred or not entry.deferred) and (target := imported_module(entry)) not in (None, name)
        }
        for name, module in modules().items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_imports_are_absolute_and_of_modules_that_there_are():
    for name, module in modules().items():
        for entry in module.imports():
            assert entry.module, f"{name}:{entry.line}: a relative import"
            assert imported_module(entry) in (None, *modules()), f"{name}:{entry.line}: no module {entry.module}"


def distribution(requirement: str) -> str:
    """Normal form of the name in a requirement, or of a distribution."""
    return re.sub("[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def imported_distributions() -> dict[str, str]:
    """Distributions that the package imports, each with a place where it does."""
    owners = importlib.metadata.packages_distributions()
    imported = {}
    for name, module in modules().items():
        for entry in module.imports():
            top = entry.module.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "zoo":
                imported.setdefault(distribution(owners.get(top, [top])[0]), f"{name}:{entry.line}")
    return imported


def test_every_core_dependency_is_imported():
    core = set(map(distribution, PROJECT["dependencies"]))
    assert core <= imported_distributions().keys()


def test_every_import_is_declared():
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    declared = set(map(distribution, requirements))
    assert {name: place for name, place in imported_distributions().items() if name not in declared} == {}


# Texts


def test_no_module_is_longer_than_500_lines():
    own = [module for name, module in modules().items() if not name.startswith(("zoo.models", "zoo.trainers"))]
    lengths = {str(module.path): len(module.text.splitlines()) for module in own}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def compared_texts(node: ast.AST) -> Iterator[str]:
    """Texts that a comparison or a case has as operands, one by one or in a tuple, list or set."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
        operands = [node.value]
    else:
        return
    for operand in operands:
        for part in operand.elts if isinstance(operand, ast.Tuple | ast.List | ast.Set) else [operand]:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_no_modality_is_compared_by_name_outside_its_own_folder():
    places = [
        f"{module.path}:{node.lineno}: {ast.unparse(node)}"
        for name, module in modules().items()
        if not name.startswith("zoo.modalities")
        for node in ast.walk(module.tree())
        if set(compared_texts(node)) & set(modalities.NAMES)
    ]
    assert places == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private_names(module: Module) -> Iterator[str]:
    """Private names of other modules of the package that this one imports or reaches into."""
    aliases = {}
    for entry in module.imports():
        if (target := imported_module(entry)) is None or target == module.name:
            continue
        if entry.name is not None and is_private(entry.name):
            yield f"{module.path}:{entry.line}: {entry.module}.{entry.name}"
        if entry.name is None or target == f"{entry.module}.{entry.name}":
            aliases[entry.alias] = target
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner.partition(".")[0] in aliases and (owner in aliases or owner in modules()):
                yield f"{module.path}:{node.lineno}: {ast.unparse(node)}"


def test_no_private_name_is_used_in_another_file():
    assert [place for module in modules().values() for place in foreign_private_names(module)] == []
