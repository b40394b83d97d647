"""TorchScript modules as data: their tensors, with the names that they have in the `state_dict`.

An archive holds a pickle of the module's attributes and the source code of its classes. Loading it with torch would
run the `__setstate__` of these classes. Here only the lists of each class's parameters and buffers are read from the
code, as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from torch import Tensor

from zoo.checkpoints.pickles import ScriptObject

DECLARED = re.compile(r"^  __(?:parameters|buffers)__ = \[([^\]\n]*)\]", re.MULTILINE)
CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)
DEPTH, MODULES = 100, 100_000  # of modules inside a module; one that is in two places counts twice


def declared_tensors(code: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the names of the parameters and buffers of each class, by its full name.

    Args:
        code: source by module.
    """
    declared = {}
    for module, text in code.items():
        classes = list(CLASS.finditer(text))
        for found, end in pairwise([*classes, None]):
            assert found is not None  # only the last is
            body = text[found.start() : end.start() if end else len(text)]
            names = {quoted for block in DECLARED.findall(body) for quoted in re.findall(r'"([^"]+)"', block)}
            declared[f"{module}.{found[1]}"] = names
    return declared


def named_tensors(module: ScriptObject, declared: Mapping[str, set[str]]) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by their dotted names.

    Raises:
        ValueError: modules that contain themselves, or too many.
    """
    return dict(_tensors(module, "", declared, iter(range(MODULES))))


def _tensors(
    module: ScriptObject, prefix: str, declared: Mapping[str, set[str]], numbers: Iterator[int]
) -> Iterator[tuple[str, Tensor]]:
    if prefix.count(".") > DEPTH or next(numbers, None) is None:
        raise ValueError("modules that contain themselves, or too many")
    if not isinstance(module.attributes, Mapping):
        return
    names = declared.get(module.kind, set())
    for name, value in module.attributes.items():
        if isinstance(value, ScriptObject):
            yield from _tensors(value, f"{prefix}{name}.", declared, numbers)
        elif isinstance(value, Tensor) and name in names:
            yield f"{prefix}{name}", value
