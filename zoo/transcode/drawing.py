"""Decoders that draw noise, with a seed."""

from __future__ import annotations

from typing import Any

import torch

from zoo.errors import InputError, shown
from zoo.tokenizer import Tokenizer

LARGEST_SEED = 2**63 - 1


def check_seed(seed: int | None) -> None:
    """Raise InputError unless this is a seed or None."""
    if seed is not None and (type(seed) is not int or not 0 <= seed <= LARGEST_SEED):
        raise InputError(f"expected seed as an integer from 0 to {LARGEST_SEED}, got {shown(seed)}")


def drawing_options(tokenizer: Tokenizer, seed: int | None) -> dict[str, Any]:
    """Return the options of `decode` with which one signal is drawn from a seed; none for None.

    Raises:
        InputError: a seed for a decoder that draws nothing.
    """
    if seed is None:
        return {}
    if "generator" not in tokenizer.decode_options:
        raise InputError(f"{tokenizer.spec.name} has no seed: its decoder draws nothing")
    return {"generator": torch.Generator(tokenizer.device).manual_seed(seed)}
