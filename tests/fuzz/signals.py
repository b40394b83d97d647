"""Signals, `lengths` and options that `encode` and `preprocess` are given."""

import warnings
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zoo
from tests.support.fuzz import Boundary, Case, in_other_form, in_other_shape, odd_number, odd_value, shown
from tests.support.tokenizers import (
    example,
    expect,
    expect_codes,
    expect_round_trip,
    expect_usual,
    trained,
    untrained,
)
from zoo.tokenizer import PREPROCESS_OPTIONS

EXTREMES = (1e3, 1e6, 1e20, 3e38, -1e20, float("nan"), float("inf"), -float("inf"))


class Signals(Boundary):
    name = "signals"

    def __init__(self, folder: Path):
        self.tokenizers = {**trained(), **untrained()}
        self.common = list(trained())

    def case(self, random: Random) -> Case:
        name = random.choice(self.common if random.random() < 0.9 else list(self.tokenizers))
        tokenizer = self.tokenizers[name]
        x = example(tokenizer, random.choice([1, 2, 3]))
        if random.random() < 0.25:
            source, options = in_memory(random, tokenizer, x), odd_options(random, PREPROCESS_OPTIONS)
            options.pop("other", None)  # which Python refuses
            what = f"{name}.preprocess({shown(source)}, {shown(options)})"
            return Case(what, partial(preprocess, tokenizer, source, options))
        lengths = odd_lengths(random, tokenizer, x) if random.random() < 0.5 else None
        changed = odd_signal(random, x) if lengths is None or random.random() < 0.2 else x
        known = ("sample_rate", "chunk_frames", "num_codebooks", "num_tokens", *tokenizer.encode_options)
        options = odd_options(random, known) if random.random() < 0.4 else {}
        what = f"{name}.encode({shown(changed)}, lengths={shown(lengths)}, {shown(options)})"
        return Case(what, partial(encode, tokenizer, changed, lengths, options))


def odd_signal(random: Random, x: Tensor) -> Any:
    """Return a signal, with one or two things changed that may make it another."""
    for _ in range(random.choice([0, 1, 1, 1, 2])):
        match random.randrange(8):
            case 0 | 1:
                x = in_other_form(random, x)
            case 2 | 3:
                x = in_other_shape(random, x)
            case 4:
                x = x * random.choice([255.0, -1.0, 1e4, 1e20, 1e38, 0.0, 1e-40])
            case 5 | 6:
                x = x.clone()
                x.view(-1)[random.randrange(x.numel())] = random.choice(EXTREMES)
            case 7:
                return odd_value(random)
        if x.is_sparse or x.is_nested or x.layout != torch.strided or not x.is_contiguous() or not x.numel():
            break
        if not x.is_floating_point() or x.is_meta:
            break
    return x


def odd_lengths(random: Random, tokenizer: zoo.Tokenizer, x: Tensor) -> Any:
    """Return valid lengths, or anything else."""
    steps = tokenizer.size_of(x)[0]
    lengths = [random.randint(1, steps) for _ in range(len(x))]
    match random.randrange(7):
        case 0 | 1:
            return torch.tensor(lengths)
        case 2:
            return random.choice([list, tuple, np.array])(lengths)
        case 3:
            return in_other_form(random, torch.tensor(lengths))
        case 4:
            lengths[random.randrange(len(lengths))] = odd_number(random)
            return lengths
        case 5:
            lengths[random.randrange(len(lengths))] = random.choice([0, -1, steps + 1, 2**40])
            return torch.tensor(lengths)
    return odd_value(random)


def odd_options(random: Random, known: tuple[str, ...]) -> dict[str, Any]:
    """Return one or two options with values that they may not take."""
    names = [random.choice([*known, *known, "other"]) for _ in range(random.choice([1, 1, 2]))]
    usual = (None, 1, 4, 16, 24000, 0.5, "A", True)
    return {name: random.choice([random.choice(usual), odd_number(random), odd_value(random)]) for name in names}


def in_memory(random: Random, tokenizer: zoo.Tokenizer, x: Tensor) -> Any:
    """Return a signal in memory, or a list of them, as `preprocess` may be given."""
    item = x[0]
    match random.randrange(6):
        case 0:
            return item
        case 1:
            return odd_signal(random, item)
        case 2:
            return np.moveaxis(item.numpy(), 0, -1)
        case 3:
            array = item.numpy()
            return array.astype(random.choice(["u1", "i2", "f2", "f8", "?", "c8", "O", ">f4", "S4"]))
        case 4:
            return [item, odd_signal(random, item)]
    return odd_value(random)


def encode(tokenizer: zoo.Tokenizer, x: Any, lengths: Any, options: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        codes = tokenizer.encode(x, lengths, **options)
    size, window = tokenizer.size_of(x), options.get("chunk_frames")
    grid = tokenizer.spec.grid(size, window)
    if options.get("num_tokens") is not None:
        grid = (options["num_tokens"],)
    expect_codes(tokenizer, codes, len(x), grid, options.get("num_codebooks"))
    expect_usual(tokenizer, x, bool(caught))
    alone_options = {key: value for key, value in options.items() if key != "generator"}
    if lengths is not None and "generator" not in options:
        for number, length in enumerate(torch.as_tensor(lengths).tolist()):
            item = x[number : number + 1].narrow(tokenizer.modality.axis, 0, length)
            alone = tokenizer.encode(item, **alone_options)
            part = codes[number : number + 1, :, : alone.shape[2]]
            expect(torch.equal(part, alone), f"item {number} has other codes alone than in the batch")
            expect(not codes[number, :, alone.shape[2] :].any(), f"item {number} has codes after its end")
    decoding = {name: options[name] for name in ("chunk_frames", "chunk_seconds", "num_tokens") if name in options}
    known = (*tokenizer.decode_options, *tokenizer.modality.window_options)
    expect_round_trip(tokenizer, x, codes, **{key: value for key, value in decoding.items() if key in known})


def preprocess(tokenizer: zoo.Tokenizer, source: Any, options: dict[str, Any]) -> None:
    made = tokenizer.preprocess(source, **options)
    x, lengths = (made, None) if isinstance(made, Tensor) else made
    encode(tokenizer, x, lengths, {})
