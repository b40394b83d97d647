"""Codes, sizes and options that `decode` and `embed` are given."""

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

import zoo
from tests.fuzz.signals import odd_options
from tests.support.fuzz import Boundary, Case, in_other_form, in_other_shape, odd_number, odd_value, shown
from tests.support.tokenizers import example, expect, expect_signal, trained, untrained


class Codes(Boundary):
    name = "codes"

    def __init__(self, folder: Path):
        self.tokenizers = {**trained(), **untrained()}
        self.common = list(trained())
        self.given = {name: one.encode(example(one, 2)) for name, one in self.tokenizers.items()}

    def case(self, random: Random) -> Case:
        name = random.choice(self.common if random.random() < 0.9 else list(self.tokenizers))
        tokenizer = self.tokenizers[name]
        codes = self.given[name]
        size = odd_size(random, tokenizer.size_of(example(tokenizer, 1))) if random.random() < 0.6 else None
        changed = odd_codes(random, codes) if size is None or random.random() < 0.2 else codes
        if random.random() < 0.15:
            return Case(f"{name}.embed({shown(changed)})", partial(embed, tokenizer, changed))
        known = ("chunk_frames", "num_codebooks", "num_tokens", *tokenizer.decode_options)
        options = odd_options(random, known) if random.random() < 0.3 else {}
        what = f"{name}.decode({shown(changed)}, size={shown(size)}, {shown(options)})"
        return Case(what, partial(decode, tokenizer, changed, size, options))


def odd_codes(random: Random, codes: Tensor) -> Any:
    """Return codes, with something changed that may make them wrong."""
    match random.randrange(6):
        case 0:
            return codes
        case 1 | 2:
            codes = codes.clone(memory_format=torch.contiguous_format)
            wrong = random.choice([-1, 20, 256, 1024, 4096, 8192, 64000, 2**31, 2**40, -(2**63), 2**63 - 1])
            codes.view(-1)[random.randrange(codes.numel())] = wrong
            return codes
        case 3:
            return in_other_form(random, codes)
        case 4:
            return in_other_shape(random, codes)
    return odd_value(random)


def odd_size(random: Random, size: tuple[int, ...]) -> Any:
    """Return a size, or anything else."""
    changed: list[Any] = list(size)
    match random.randrange(6):
        case 0:
            return size
        case 1:
            changed[random.randrange(len(changed))] = odd_number(random)
        case 2:
            changed[random.randrange(len(changed))] = random.randint(1, 40)
        case 3:
            changed.append(random.randint(1, 40))
        case 4:
            return odd_number(random)
        case 5:
            return odd_value(random)
    return random.choice([tuple, list, torch.Size, torch.tensor])(changed) if _are_ints(changed) else changed


def _are_ints(values: list[Any]) -> bool:
    return all(type(value) is int and abs(value) < 2**63 for value in values)


def decode(tokenizer: zoo.Tokenizer, codes: Any, size: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)  # for decoders that draw
    signal = tokenizer.decode(codes, size=size, **options)
    sizes = None if size is None else (size,) if isinstance(size, int) else tuple(size)
    expect_signal(tokenizer, signal, len(codes), sizes)
    if not options:
        torch.manual_seed(0)
        expect(torch.equal(signal, tokenizer.decode(codes.long(), size=size)), "int64 codes decode to another signal")


def embed(tokenizer: zoo.Tokenizer, codes: Any) -> None:
    latent = tokenizer.embed(codes)
    expect(bool(latent.isfinite().all()) and len(latent) == len(codes), f"a latent {list(latent.shape)}")
