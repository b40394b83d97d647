"""The tokenizers that contracts are checked on, and signals for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo import modalities, registry
from zoo.modalities import Modality
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


def small(name: str) -> Tokenizer:
    """Return the variant's network, made small, with the same random weights each time, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return registry.create(name, small=True).eval()


def sizes(tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Return small sizes of signals: one that fits the grid, and one that does not where the network takes any."""
    return tokenizer.modality.sizes(tokenizer.spec)


def signal(tokenizer: Tokenizer, batch: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return a batch of random signals of `size` in the public layout, the same for the same `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return tokenizer.modality.example(tokenizer.spec, batch, size, generator).to(tokenizer.device)


def decode_options(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the options with which `decode` gives the same signal twice: a generator for a decoder that samples."""
    return {"generator": torch.Generator().manual_seed(0)} if "generator" in tokenizer.decode_options else {}


@dataclass(frozen=True)
class Subject:
    """A tokenizer to check, before its network is built.

    decodes: whether it has a decoder. streams: whether it has a stream.
    teaches: whether its codes also stand for the features of a teacher.
    stands_alone: whether its codes mean something without a codebook of their signal's own.
    registered: whether it is a variant, given by its name.
    build: makes the network anew, in eval mode, so that a check may change it.
    """

    spec: TokenizerSpec
    decodes: bool
    streams: bool
    teaches: bool
    stands_alone: bool
    registered: bool
    build: Callable[[], Tokenizer]

    @classmethod
    def of(cls, tokenizer: Tokenizer | str) -> Subject:
        """Return the subject that a variant's name, made small, or a tokenizer, as it is, stands for."""
        if isinstance(tokenizer, Tokenizer):
            return cls(tokenizer.spec, *_facts(tokenizer), False, lambda: copy.deepcopy(tokenizer).eval())
        variant = registry.info(tokenizer)
        return cls(variant.spec, *_facts(variant.builder), True, lambda: small(variant.name))

    @property
    def modality(self) -> Modality:
        return modalities.get(self.spec.modality)


def _facts(tokenizer: Tokenizer | type[Tokenizer]) -> tuple[bool, bool, bool, bool]:
    return (
        tokenizer.encode_only is None,
        tokenizer.cannot_stream is None,
        tokenizer.teacher_features is not None,
        tokenizer.own_codebook is None,
    )
