"""Plain values, as YAML has them, to typed fields and keywords, and back. Imports no torch."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from zoo.errors import InputError


def plain(value: Any) -> Any:
    """`value` with its tuples as lists, which is what YAML gives back."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def fields_of(
    cls: type, values: Mapping[str, Any], origin: str, hints: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """The fields of a dataclass from plain values.

    Args:
        cls: the dataclass. values: plain values by field; left out fields have the class's defaults.
        origin: file or other name that error messages start with.
        hints: type of each field. prefix: what error messages put before a field's name, such as `data.`.

    Raises:
        InputError: a key that is missing or unknown, or a value of the wrong type.
    """
    fields = dataclasses.fields(cls)
    required = [item.name for item in fields if item.default is item.default_factory]
    missing = [prefix + name for name in required if name not in values]
    if missing:
        raise InputError(f"{origin}: {', '.join(missing)} missing")
    for item in fields:
        default = item.default
        # Keys that are left out have the values of this field's default, which may differ from those of its class.
        if (
            dataclasses.is_dataclass(default)
            and not isinstance(default, type)
            and isinstance(values.get(item.name), dict)
        ):
            values = {**values, item.name: {**plain(dataclasses.asdict(default)), **values[item.name]}}
    return converted(values, hints, origin, prefix)


def keywords_of(function: Callable[..., Any], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The keyword-only arguments of `function` from the plain values that a recipe has under `prefix`.

    Raises:
        InputError: a keyword that `function` does not have, or a value of the wrong type.
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    keywords = {item.name: hints.get(item.name, Any) for item in parameters if item.kind is item.KEYWORD_ONLY}
    return converted(values, keywords, "recipe", prefix)


def converted(values: Mapping[str, Any], hints: Mapping[str, Any], origin: str, prefix: str) -> dict[str, Any]:
    """Plain values converted to the types of `hints`; InputError for a key without a type or a value of another."""
    for key in values:
        if key not in hints:
            raise InputError(f"{origin}: unknown key {prefix}{key}; accepted: {', '.join(sorted(hints))}")
    return {key: convert(value, hints[key], origin, prefix + key) for key, value in values.items()}


def convert(value: Any, hint: Any, origin: str, key: str) -> Any:
    """A plain value as one of the type `hint`; InputError names `origin` and `key`."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind is types.UnionType:
        return None if value is None else convert(value, arguments[0], origin, key)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return hint(**fields_of(hint, value, origin, typing.get_type_hints(hint), f"{key}."))
    if kind is dict and isinstance(value, dict):
        return {name: convert(inner, arguments[1], origin, f"{key}.{name}") for name, inner in value.items()}
    if kind in (tuple, Sequence) and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if kind is Sequence or arguments[1:] == (...,) else arguments
        if len(inner) == len(value):
            return tuple(convert(*pair, origin, f"{key}[{i}]") for i, pair in enumerate(zip(value, inner, strict=True)))
    if hint is float and type(value) is int:
        return float(value)
    if hint is Any or type(value) is hint or (kind is Literal and value in arguments):
        return value
    raise InputError(f"{origin}: expected {key} as {_type_in_words(hint)}, got {value!r}")


def _type_in_words(hint: Any) -> str:
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return " or ".join(map(repr, arguments))
    if kind in (tuple, Sequence):
        arguments = (*arguments, ...) if kind is Sequence else arguments
        return f"[{', '.join('...' if argument is ... else _type_in_words(argument) for argument in arguments)}]"
    if kind is dict or dataclasses.is_dataclass(hint):
        return "keys and values"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
