"""Small tokenizers of all kinds, and what has to be true of what they return."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

import zoo
from tests.support.fuzz import Silent
from tests.support.variants import one_each
from zoo.testing import decode_options

NANO = (
    *("wetok-nano", "fqgan-nano", "one-d-piece-nano", "wavtokenizer-nano", "speechtokenizer-nano", "mimi-nano"),
    *("cosmos-dv-nano", "dplm2-nano"),
)


@cache
def trained() -> dict[str, zoo.Tokenizer]:
    """Return the tokenizers whose weights ship, by name."""
    return {name: zoo.load(name) for name in (*NANO, "foldseek-3di")}


@cache
def untrained() -> dict[str, zoo.Tokenizer]:
    """Return a small tokenizer of each other architecture, by name."""
    torch.manual_seed(0)
    names = [name for name in one_each() if not name.endswith("nano") and name != "foldseek-3di"]
    return {name: zoo.create(name, small=True).eval() for name in names}


def example(tokenizer: zoo.Tokenizer, batch: int, steps: int | None = None) -> Tensor:
    """Return a batch of random signals; `steps`: their length, if it may differ."""
    size = tokenizer.modality.sizes(tokenizer.spec)[0]
    if steps is not None and tokenizer.modality.batches_have_lengths:
        size = (steps, *size[1:])
    return tokenizer.modality.example(tokenizer.spec, batch, size, torch.Generator().manual_seed(0))


def expect(condition: bool, message: str) -> None:
    """Raise `Silent` with the message unless the condition holds."""
    if not condition:
        raise Silent(message)


def expect_codes(
    tokenizer: zoo.Tokenizer, codes: Tensor, batch: int, grid: tuple[int, ...], num_codebooks: int | None = None
) -> None:
    """Raise `Silent` unless these are codes of the tokenizer for a batch of signals on such a grid."""
    spec = tokenizer.spec
    expect(codes.dtype == torch.int64, f"codes of {codes.dtype}")
    rows = num_codebooks or len(spec.default_sizes)
    expected = (batch, rows, *grid)
    expect(codes.shape == expected, f"codes {list(codes.shape)}, expected {list(expected)}")
    for number, size in enumerate(spec.codebook_sizes[:rows]):
        least, greatest = (int(bound) for bound in codes[:, number].aminmax())
        expect(least >= 0 and greatest < size, f"codes {least} to {greatest} of codebook {number} with {size} entries")


def expect_usual(tokenizer: zoo.Tokenizer, x: Tensor, warned: bool) -> None:
    """Raise `Silent` if values of a signal that was encoded are far from what its networks know, without a warning."""
    greatest, most = float(x[~x.isnan()].abs().max()), 1e2 if tokenizer.modality.is_sampled else 1e5
    expect(warned or greatest <= most, f"values of up to {greatest:g} were encoded without a warning")


def expect_signal(tokenizer: zoo.Tokenizer, signal: Tensor, batch: int, size: tuple[int, ...] | None = None) -> None:
    """Raise `Silent` unless this is a finite batch of signals, of this size, in the public range."""
    expect(signal.is_floating_point() and len(signal) == batch, f"a signal {signal.dtype} {list(signal.shape)}")
    expect(bool(signal.isfinite().all()), "a signal that is not finite")
    if size is not None:
        expect(tokenizer.size_of(signal) == size, f"a signal of size {tokenizer.size_of(signal)}, expected {size}")
    if tokenizer.modality.has_unit_range:
        expect(float(signal.min()) >= 0 and float(signal.max()) <= 1, "a signal outside [0, 1]")
    else:
        expect(float(signal.abs().max()) < 1e6, f"a signal of up to {float(signal.abs().max()):g}")


def expect_round_trip(tokenizer: zoo.Tokenizer, x: Tensor, codes: Tensor, **options: Any) -> None:
    """Raise `Silent` unless codes of the signals `x` decode to signals of their size."""
    if tokenizer.encode_only is None and math.prod(codes.shape) < 10_000:
        decoded = tokenizer.decode(codes, size=tokenizer.size_of(x), **options, **decode_options(tokenizer))
        expect_signal(tokenizer, decoded, len(x), tokenizer.size_of(x))
