"""Trainers: recipes, losses and the loop that turns them into weights.

    result = zoo.trainers.train("wetok-nano", ["steps=2000"], data="photos")
    zoo.trainers.export(result.run_dir, "weights.safetensors")

`zoo train RECIPE key=value ... --data DIR` is the same. `import zoo.trainers` is light: a name's module is imported
when the name is first used, and torch and Fabric only once a recipe has been read without an error.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.extras import extra

if TYPE_CHECKING:
    from zoo.trainers.building import create_tokenizer as create_tokenizer
    from zoo.trainers.exporting import export as export
    from zoo.trainers.reading import list_recipes as list_recipes
    from zoo.trainers.reading import load_recipe as load_recipe
    from zoo.trainers.recipe import Recipe as Recipe
    from zoo.trainers.result import TrainingResult as TrainingResult
    from zoo.trainers.training import train as train

_MODULE_OF = {
    "Recipe": "recipe",
    "TrainingResult": "result",
    "create_tokenizer": "building",
    "export": "exporting",
    "list_recipes": "reading",
    "load_recipe": "reading",
    "train": "training",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'zoo.trainers' has no attribute {name!r}")
    with extra("train", "training"):
        return getattr(import_module(f"zoo.trainers.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
