"""The network of a recipe."""

from __future__ import annotations

import dataclasses
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

import zoo
from zoo.checkpoints import without_storage
from zoo.errors import InputError, ZooError, shown
from zoo.tokenizer import Tokenizer
from zoo.trainers.conversion import check_sizes, converted, keywords_of
from zoo.trainers.memory import check_fits, usable_memory
from zoo.trainers.recipe import Recipe

IDENTITY = ("name", "modality")  # facts of a variant that a recipe does not change
MOST_TENSORS = 20_000  # in a network


def create_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's network, in training mode, with random weights that its seed decides.

    Raises:
        InputError: a `config`, `spec` or `quantizer` key that there is not, a value of the wrong type, values that the
            tokenizer cannot be built with, or a network that this machine's memory cannot hold.
    """
    variant = zoo.info(recipe.tokenizer)
    hints = {key: hint for key, hint in typing.get_type_hints(type(variant.spec)).items() if key not in IDENTITY}
    spec = converted(recipe.spec, hints, "recipe", "spec.")
    config = keywords_of(variant.builder.__init__, recipe.config, "config.")
    check_sizes(recipe.quantizer, "quantizer.")
    arguments = {key: value for key, value in recipe.quantizer.items() if key != "name"}

    def build() -> Tokenizer:
        changed = dataclasses.replace(variant.spec, **spec)
        network = dataclasses.replace(variant, spec=changed, config={**variant.config, **config}).build()
        return zoo.requantize(network, recipe.quantizer["name"], **arguments) if recipe.quantizer else network

    try:
        with without_storage(), limited(f"a {variant.name} with this config and spec"):
            build()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return build()
    except ZooError as error:
        raise InputError(f"recipe: {str(error).removeprefix('recipe: ')}") from error
    except Exception as error:  # a network's layers raise errors of many kinds for odd sizes
        parts = ("config", "spec", "quantizer") if recipe.quantizer else ("config", "spec")
        given = " and ".join(f"{part} {shown(getattr(recipe, part))}" for part in parts)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(f"recipe: {variant.name} cannot be built with {given}: {reason}") from error


@contextmanager
def limited(what: str) -> Iterator[None]:
    """Context in which this thread builds a network; it is refused as soon as it is too large or a parameter is empty.

    Raises:
        InputError: more tensors than any network has, more bytes than this machine's memory, or an empty parameter;
            `what` names the network.
    """
    builder = threading.get_ident()
    count, size, memory = 0, 0, usable_memory()

    def weigh(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal count, size
        if threading.get_ident() != builder or tensor is None:
            return
        count += 1
        size += tensor.nbytes
        if count > MOST_TENSORS:
            raise InputError(f"recipe: {what} has more than {MOST_TENSORS} tensors")
        check_fits(size, what, memory)
        if isinstance(tensor, nn.Parameter) and tensor.numel() == 0:
            shape = list(tensor.shape)
            raise InputError(f"recipe: {what} has nothing to learn in {type(module).__name__}.{name}, of shape {shape}")

    hooks = [register_module_parameter_registration_hook(weigh), register_module_buffer_registration_hook(weigh)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
