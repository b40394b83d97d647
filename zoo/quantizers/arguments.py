"""Arguments of a quantizer that come by name, checked before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from zoo.errors import InputError


def parameters_of(*functions: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of functions without `dim`; of parameters with the same name, the first."""
    parameters: dict[str, inspect.Parameter] = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "dim" and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                parameters.setdefault(name, parameter)
    return parameters


def check_arguments(name: str, arguments: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter]) -> None:
    """Raise InputError for an argument of quantizer `name` that it does not accept, or one missing that it needs."""
    if unknown := arguments.keys() - accepted.keys():
        raise InputError(f"{name} has no argument {', '.join(sorted(unknown))}; it accepts {', '.join(accepted)}")
    required = [key for key, parameter in accepted.items() if parameter.default is inspect.Parameter.empty]
    if missing := [key for key in required if key not in arguments]:
        raise InputError(f"{name} needs {', '.join(missing)}; it accepts {', '.join(accepted)}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among `known`, with the nearest ones, or all if none is near."""
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return InputError(f"unknown {kind} {name!r}; did you mean {', '.join(map(repr, near))}?")
    return InputError(f"unknown {kind} {name!r}; expected one of {', '.join(known)}")
