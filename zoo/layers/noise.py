"""Noise for networks that draw."""

from __future__ import annotations

import reprlib

import torch
from torch import Tensor

from zoo.errors import InputError


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return noise of deviation 1 in the shape, data type and place of `x`; None: PyTorch's own generator draws it.

    Raises:
        InputError: something that is no generator, or one of another device.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"expected generator as a torch.Generator, got {reprlib.repr(generator)}")
    if generator is not None and generator.device.type != x.device.type:
        raise InputError(f"expected a generator on {x.device.type}, where the network is, got {generator.device.type}")
    return torch.empty_like(x).normal_(generator=generator)
