"""Trainers: recipes, losses and the loop that turns them into weights.

    result = zoo.trainers.train("wetok-nano", ["steps=2000"], data="photos")
    zoo.trainers.export(result.run_dir, "weights.safetensors")

`zoo train RECIPE key=value ... --data DIR` is the same.
"""

from zoo.trainers.loop import TrainingResult, train
from zoo.trainers.recipe import Recipe, create_tokenizer, list_recipes, load_recipe
from zoo.trainers.run import export

__all__ = ["Recipe", "TrainingResult", "create_tokenizer", "export", "list_recipes", "load_recipe", "train"]
