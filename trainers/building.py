"""The network of a recipe."""

from __future__ import annotations

import dataclasses
import typing

import torch

import zoo
from zoo.tokenizer import Tokenizer
from zoo.trainers.conversion import converted, keywords_of
from zoo.trainers.recipe import Recipe


def create_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's network, in training mode, with random weights that its seed decides.

    Raises:
        InputError: a `config` or `spec` key that the tokenizer does not have, or a value of the wrong type.
    """
    variant = zoo.info(recipe.tokenizer)
    spec = converted(recipe.spec, typing.get_type_hints(type(variant.spec)), "recipe", "spec.")
    config = keywords_of(variant.builder.__init__, recipe.config, "config.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        changed = dataclasses.replace(variant.spec, **spec)
        return dataclasses.replace(variant, spec=changed, config={**variant.config, **config}).build()
