"""Plain values, as YAML has them, to typed fields and keywords, and back. Imports no torch."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from zoo.errors import InputError, shown

MOST_VALUES = 10_000  # in a recipe
MOST_KEYWORD = 2**20  # greatest whole number among the keywords of a network
MOST_LEVELS = 32  # of nesting in a recipe
MAY_BE_INFINITE = ("clip_norm", "cache_gib")  # keys whose number may be .inf: no limit


def plain(value: Any, origin: str = "recipe", key: str = "") -> Any:
    """A value as YAML has it: `value` with its mappings as dictionaries and its tuples as lists, all of them new.

    Args:
        origin: file or other name that error messages start with. key: what the value is called in messages.

    Raises:
        InputError: something other than keys and values, lists, text, numbers, booleans and None; a key that is not
            text, text with NUL or surrogates, NaN, a whole number of more than 63 bits, or too many values or levels.
    """
    count = 0

    def walk(value: Any, key: str, level: int) -> Any:
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise InputError(f"{origin}: more than {MOST_VALUES} values, counting those of an alias each time")
        if level > MOST_LEVELS:
            raise InputError(
                f"{origin}: {shown_key(key)} is nested deeper than {MOST_LEVELS} levels, or contains itself"
            )
        if isinstance(value, Mapping):
            prefix = f"{key}." if key else ""
            for name in value:
                if not isinstance(name, str):
                    raise InputError(
                        f"{origin}: expected text as a key{f' of {shown_key(key)}' if key else ''}, got {shown(name)}"
                    )
            return {check_text(name): walk(inner, prefix + name, level + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, f"{key}[{number}]", level + 1) for number, inner in enumerate(value)]
        if type(value) is str:
            return check_text(value, key)
        if type(value) is int and value.bit_length() > 63:
            raise InputError(f"{origin}: expected {shown_key(key)} as a whole number below 2**63, got {shown(value)}")
        if type(value) is float and math.isnan(value):
            raise InputError(f"{origin}: expected {shown_key(key)} as a number, got nan")
        if value is None or type(value) in (bool, int, float):
            return value
        raise InputError(f"{origin}: expected {shown_key(key)} as a plain value, got a {type(value).__name__}")

    def check_text(text: str, key: str = "a key") -> str:
        if "\0" in text or (not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text)):
            raise InputError(f"{origin}: expected {shown_key(key)} as Unicode text without NUL, got {shown(text)}")
        return text

    return walk(value, key, 0)


def shown_key(key: str) -> str:
    """A dotted key for a message, cut short if it is long and quoted if it is not all printable."""
    return key if key.isprintable() and len(key) <= 100 else shown(key)


def fields_of(
    cls: type, values: Mapping[str, Any], origin: str, hints: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """The fields of a dataclass from plain values.

    Args:
        cls: the dataclass. values: plain values by field; fields that are left out have the class's defaults.
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
    return converted(values, {item.name: hints[item.name] for item in fields}, origin, prefix)


def keywords_of(function: Callable[..., Any], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The keyword-only arguments of `function` from the plain values that a recipe has under `prefix`.

    Raises:
        InputError: a keyword that `function` does not have, a value of the wrong type, or as `check_sizes`.
    """
    check_sizes(values, prefix)
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    keywords = {item.name: hints.get(item.name, Any) for item in parameters if item.kind is item.KEYWORD_ONLY}
    return converted(values, keywords, "recipe", prefix)


def check_sizes(values: Mapping[str, Any], prefix: str) -> None:
    """Raise InputError for a whole number under `prefix` so great that no network has it as a size."""

    def check(key: str, value: Any) -> None:
        if isinstance(value, int) and value > MOST_KEYWORD:
            raise InputError(f"recipe: expected {key} as a whole number of at most {MOST_KEYWORD}, got {value}")
        for inner in value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else ():
            check(key, inner)

    for name, value in values.items():
        check(shown_key(prefix + name), value)


def converted(values: Mapping[str, Any], hints: Mapping[str, Any], origin: str, prefix: str) -> dict[str, Any]:
    """Plain values converted to the types of `hints`; InputError for an unknown key or a value of another type."""
    for key in values:
        if key not in hints:
            raise InputError(f"{origin}: unknown key {shown_key(prefix + key)}; accepted: {', '.join(sorted(hints))}")
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
    if type(value) is float and math.isinf(value) and key.rpartition(".")[2] not in MAY_BE_INFINITE:
        raise InputError(f"{origin}: expected {shown_key(key)} as a finite number, got {value}")
    if hint is Any or type(value) is hint or (kind is Literal and value in arguments):
        return value
    raise InputError(f"{origin}: expected {shown_key(key)} as {_type_in_words(hint)}, got {shown(value)}")


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
