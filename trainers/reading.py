"""Recipes read from YAML and changed by `key=value`. Imports no torch before a recipe's keys and types are checked."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo.errors import InputError, shown
from zoo.trainers.conversion import MOST_LEVELS, convert, fields_of, plain, shown_key
from zoo.trainers.data.options import DATA_OPTIONS
from zoo.trainers.recipe import Recipe
from zoo.trainers.yaml_text import MOST_BYTES, read_yaml

RECIPES = Path(__file__).parent / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that ship with zoo."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(
    source: str | Path | Recipe | Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str] = ()
) -> Recipe:
    """Read a recipe and change it.

    Args:
        source: name of a recipe that ships with zoo, path of a YAML file, a recipe, or keys and values as YAML has
            them.
        overrides: `{"optimizer.learning_rate": 1e-4}` or `["optimizer.learning_rate=1e-4"]`.

    Raises:
        InputError: no such recipe, an unknown key, a value of the wrong type or out of range, or YAML that cannot be
            read.
        UnknownTokenizerError: the recipe's tokenizer is not registered.
    """
    values, origin = _read(source)
    for key, value in _changes(overrides):
        _assign(values, key, value)
    if not isinstance(values.get("tokenizer"), str):
        raise InputError(f"{origin}: expected tokenizer as the name of a variant, got {shown(values.get('tokenizer'))}")
    values.setdefault("data", {})
    try:
        # All keys but those of `data`, whose class depends on the tokenizer: asking for that imports model files.
        fields = fields_of(Recipe, values, origin, {**typing.get_type_hints(Recipe), "data": dict[str, Any]})
        modality = zoo.info(fields["tokenizer"]).spec.modality
        if modality not in DATA_OPTIONS:
            known = ", ".join(DATA_OPTIONS)
            raise InputError(f"{origin}: {fields['tokenizer']} is for {modality}; trainers take {known}")
        fields["data"] = convert(fields["data"], DATA_OPTIONS[modality], origin, "data")
        return Recipe(**fields)
    except InputError as error:
        # The checks of the recipe's own classes do not know what file the values come from.
        raise InputError(f"{origin}: {str(error).removeprefix('recipe: ').removeprefix(f'{origin}: ')}") from None


def _read(source: str | Path | Recipe | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    # Plain values, and what error messages call their origin.
    if isinstance(source, Recipe):
        return plain(dataclasses.asdict(source)), "recipe"
    if isinstance(source, Mapping):
        return plain(source), "recipe"
    if not isinstance(source, str | Path):
        raise InputError(f"expected a recipe, its name, a .yaml file or keys and values, got a {type(source).__name__}")
    path = Path(source) if str(source).endswith((".yaml", ".yml")) else RECIPES / f"{source}.yaml"
    if not os.path.isfile(path):  # unlike that of Path, false also for a name that no file can have
        what = "not a file" if os.path.exists(path) else f"zoo has {', '.join(list_recipes())}, or give a .yaml file"
        raise InputError(f"no recipe {shown(str(source))}; {what}")
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    values = read_yaml(content, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: expected keys and values, got {shown(values)}")
    return plain(values, path.name), path.name


def _changes(overrides: Mapping[str, Any] | Sequence[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        items = list(overrides.items())
    elif isinstance(overrides, Sequence) and not isinstance(overrides, str | bytes):
        items = [_split(text) for text in overrides]
    else:
        raise InputError(f'expected overrides as ["key=value", ...] or {{key: value}}, got {shown(overrides)}')
    for key, value in items:
        if not isinstance(key, str) or not all(key.split(".")) or key.count(".") >= MOST_LEVELS:
            raise InputError(f"expected the key of an override as optimizer.learning_rate, got {shown(key)}")
        yield key, plain(value, "recipe", key)


def _split(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals or not key:
        raise InputError(f"expected key=value, got {shown(text)}")
    return key, read_yaml(value, shown_key(key))


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise InputError(f"recipe: {shown_key(key)}: {parent} is a single value, it has no keys")
    values[last] = value
