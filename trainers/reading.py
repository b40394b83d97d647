"""Recipes read from YAML and changed by `key=value`. Imports no torch before a recipe's keys and types are checked."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import zoo
from zoo.errors import InputError
from zoo.trainers.conversion import convert, fields_of, plain
from zoo.trainers.data.options import DATA_OPTIONS
from zoo.trainers.recipe import Recipe

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
    for key, value in overrides.items() if isinstance(overrides, Mapping) else map(_split, overrides):
        _assign(values, key, value)
    if not isinstance(values.get("tokenizer"), str):
        raise InputError(f"{origin}: expected tokenizer as the name of a variant, got {values.get('tokenizer')!r}")
    values.setdefault("data", {})
    # All keys but those of `data`, whose class depends on the tokenizer: asking for that imports model files.
    fields = fields_of(Recipe, values, origin, {**typing.get_type_hints(Recipe), "data": dict[str, Any]})
    modality = zoo.info(fields["tokenizer"]).spec.modality
    if modality not in DATA_OPTIONS:
        raise InputError(f"{origin}: {fields['tokenizer']} is for {modality}; trainers take {', '.join(DATA_OPTIONS)}")
    fields["data"] = convert(fields["data"], DATA_OPTIONS[modality], origin, "data")
    return Recipe(**fields)


def _read(source: str | Path | Recipe | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    # Plain values, and what error messages call their origin.
    if isinstance(source, Recipe):
        return plain(dataclasses.asdict(source)), "recipe"
    if isinstance(source, Mapping):
        return plain(source), "recipe"
    path = Path(source) if str(source).endswith((".yaml", ".yml")) else RECIPES / f"{source}.yaml"
    if not path.is_file():
        raise InputError(f"no recipe {str(source)!r}; zoo has {', '.join(list_recipes())}, or give a .yaml file")
    values = read_yaml(path.read_text(), str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: expected keys and values, got {type(values).__name__}")
    return values, path.name


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, as in version 1.2, and not text."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str, origin: str) -> Any:
    """The plain value that `text` stands for; InputError names `origin` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not YAML: {' '.join(str(error).split())}") from None


def _split(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"expected key=value, got {text!r}")
    return key, read_yaml(value, key)


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise InputError(f"recipe: {key}: {parent} is a single value, it has no keys")
    values[last] = plain(value)
