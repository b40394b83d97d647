"""Recipes as YAML or as values, and changes to them as `key=value`: read, and their networks built."""

import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.fuzz.code_files import plain
from tests.support import recipes
from tests.support.fuzz import (
    Boundary,
    Case,
    TimeLimit,
    changed_bytes,
    changed_text,
    changed_tree,
    odd_number,
    odd_text,
    odd_value,
    shown,
)
from tests.support.tokenizers import expect
from zoo.trainers.building import create_tokenizer
from zoo.trainers.memory import check_batch
from zoo.trainers.reading import RECIPES, load_recipe
from zoo.trainers.recipe import Recipe
from zoo.trainers.validation import choose_metrics

SECONDS = 2.0  # of processor time for any recipe
TINY = {"image": recipes.IMAGE, "audio": recipes.AUDIO, "video": recipes.VIDEO, "structure": recipes.STRUCTURE}
TRICKS = (
    "a: &a [*a]",
    "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
    "- " * 500,
    "[" * 3000,
    "? {a: b}\n: c",
    "!!python/object/apply:os.system [ls]",
    "a: !!binary x",
    '"\\UFFFFFFFF"',
    "--- 1\n--- 2",
    "a: 0x" + "f" * 90,
    "a: 2024-01-01",
)


class Recipes(Boundary):
    name = "recipes"

    def __init__(self, folder: Path):
        self.folder = folder
        self.values = {name: nested(values) for name, values in TINY.items()}
        self.texts = {name: yaml.safe_dump(values, sort_keys=False) for name, values in self.values.items()}
        self.shipped = {path.stem: path.read_text() for path in sorted(RECIPES.glob("*.yaml"))}
        for name, values in self.values.items():
            create_tokenizer(load_recipe(values))  # imports what it needs, so that no case has to
            assert name

    def case(self, random: Random) -> Case:
        if random.random() < 0.15:  # read alone: their networks are large
            name = random.choice(list(self.shipped))
            text = random.choice([changed_text, changed_text, with_trick])(random, self.shipped[name])
            return Case(f"{name}.yaml with changed text", partial(self.read_text, text.encode(errors="replace"), False))
        name = random.choice(list(self.values))
        values = self.values[name]
        match random.randrange(10):
            case 0 | 1 | 2:
                changed = changed_tree(random, values, random.choice([plain, odd_value]))
                return Case(f"{name}: {shown(changed)}", partial(self.read, changed, ()))
            case 3 | 4 | 5:
                overrides = [odd_override(random, values) for _ in range(random.choice([1, 1, 2]))]
                return Case(f"{name} with {shown(overrides)}", partial(self.read, values, overrides))
            case 6:
                overrides = odd_value(random)
                return Case(f"{name} with {shown(overrides)}", partial(self.read, values, overrides))
            case 7:
                content = changed_bytes(random, self.texts[name].encode())
                return Case(f"{name} with changed bytes", partial(self.read_text, content))
            case 8:
                text = changed_text(random, self.texts[name])
            case 9:
                text = with_trick(random, self.texts[name])
        return Case(f"{name}: {text[:500]}", partial(self.read_text, text.encode(errors="replace")))

    def read_text(self, content: bytes, builds: bool = True) -> None:
        path = self.folder / "case.yaml"
        path.write_bytes(content)
        self.read(path, (), builds)

    def read(self, source: Any, overrides: Any, builds: bool = True) -> None:
        begun = time.process_time()
        try:
            self.use(load_recipe(source, overrides), builds)
        finally:
            seconds = time.process_time() - begun
            if seconds > SECONDS:
                raise TimeLimit(f"{seconds:.1f} seconds of processor time")

    def use(self, recipe: Recipe, builds: bool) -> None:
        expect(load_recipe(yaml_of(recipe, self.folder)) == recipe, "written as YAML, it is another recipe")
        check_batch(recipe)
        if builds:
            tokenizer = create_tokenizer(recipe)
            choose_metrics(recipe.validation, tokenizer)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by dotted keys as nested ones."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def yaml_of(recipe: Recipe, folder: Path) -> Path:
    path = folder / "again.yaml"
    path.write_text(recipe.to_yaml())
    return path


def with_trick(random: Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(random.randrange(len(lines) + 1), random.choice(TRICKS))
    return "\n".join(lines)


def odd_override(random: Random, values: dict[str, Any]) -> str:
    keys = [f"{key}.{inner}" if inner else key for key, value in values.items() for inner in inside(value)]
    extra = ["steps", "seed", "accumulate", "weights", "freeze", "teachers", "adversarial", "spec.channels", "compile"]
    key = random.choice([*keys, *keys, *extra, odd_text(random)])
    value = random.choice([odd_number(random), odd_text(random), plain(random), random.choice(TRICKS)])
    return random.choice(["{}={}", "{}={}", "{}={}", "{}", "={}{}", "{}=={}"]).format(key, value)


def inside(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else [""]
