"""Checks of values against type hints, for specs and for the arguments of architectures."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from zoo.errors import InputError

GREATEST = 2**63 - 1


def hints_of(function: Any) -> dict[str, Any]:
    """Return the type hints of a class or function; none if they use names that exist for type checkers only."""
    try:
        return get_type_hints(function)
    except NameError:
        return {}


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], least: Mapping[str, int], source: str) -> None:
    """Raise InputError, with the name of the value, unless every value is of its type.

    Integers are sizes and numbers of things, not bools. Floats are finite.

    Args:
        values: values by name. Those without a hint are not checked.
        hints: types by name. A value whose hint is another class than these has to be an instance of it.
        least: the least integer by name; 1 for a name that is not in it.
        source: name of the class that takes the values, for errors.
    """
    for name, value in values.items():
        lowest = least.get(name, 1)
        if name in hints and not _fits(value, hints[name], lowest):
            expected = _described(hints[name], lowest)
            raise InputError(f"{source}: expected {name} as {expected}, got {reprlib.repr(value)}")


def _fits(value: Any, hint: Any, least: int) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is int:
        return type(value) is int and least <= value <= GREATEST
    if hint is float:
        return type(value) in (int, float) and abs(value) <= GREATEST**2 and math.isfinite(value)
    if hint in (None, types.NoneType):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument, least) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(_fits(item, argument, least) for item, argument in zip(value, arguments, strict=True))
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inside = isinstance(value, origin) and not isinstance(value, str | bytes)
        return inside and all(_fits(item, arguments[0], least) for item in value)
    kind = hint if origin is None else origin
    return not isinstance(kind, type) or isinstance(value, kind)


def _described(hint: Any, least: int) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is int:
        return f"an integer of at least {least}"
    if hint is float:
        return "a finite number"
    if hint in (None, types.NoneType):
        return "None"
    if origin in (Union, types.UnionType):
        return " or ".join(_described(argument, least) for argument in arguments)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return f"({', '.join(_described(argument, least) for argument in arguments)})"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a sequence, each item {_described(arguments[0], least)}"
    return getattr(hint, "__name__", str(hint))
