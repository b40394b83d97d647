"""Contracts about wrong inputs: each raises an InputError that says what came."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from zoo.testing.contract import Contract, contract, expect_refused
from zoo.testing.subject import signal, sizes
from zoo.tokenizer import Tokenizer


@contract(lambda subject: not subject.decodes)
def a_system_without_a_decoder_says_why(tokenizer: Tokenizer) -> None:
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    codes = tokenizer.encode(x)
    message = f"{tokenizer.spec.name} cannot decode: ."
    expect_refused(lambda: tokenizer.decode(codes), message, "decode")
    if tokenizer.teacher_features is None:  # which `forward` returns, so that they can be trained
        expect_refused(lambda: tokenizer(x), message, "forward")
    expect_refused(lambda: tokenizer.reconstruct(x), message, "reconstruct")


@contract(lambda subject: not subject.stands_alone)
def codes_without_the_codebook_of_their_signal_are_refused(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    expect_refused(lambda: tokenizer.embed(codes), f"{tokenizer.spec.name}: .*codebook", "embed")


@contract(lambda subject: not subject.teaches)
def a_system_without_a_teacher_says_so(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    message = f"{tokenizer.spec.name} has no features of a teacher"
    expect_refused(lambda: tokenizer.features(codes), message, "features")


@contract(lambda subject: not subject.streams)
def a_system_that_cannot_stream_says_why(tokenizer: Tokenizer) -> None:
    expect_refused(tokenizer.stream, f"{tokenizer.spec.name} cannot stream: .", "stream")


@contract(lambda subject: not subject.spec.variable_size)
def another_size_than_the_only_one_is_refused(tokenizer: Tokenizer) -> None:
    size = sizes(tokenizer)[0]
    wider = (*size[:-1], size[-1] + 16)
    takes, got = ("x".join(map(str, sides[-2:])) for sides in (size, wider))
    message = f"takes {tokenizer.modality.name} of {takes}.*, got {got}"
    expect_refused(lambda: tokenizer.encode(signal(tokenizer, 1, wider)), message, f"a signal of size {wider}")
    codes = tokenizer.encode(signal(tokenizer, 1, size))
    twice = torch.cat([codes, codes], dim=-1)
    expect_refused(lambda: tokenizer.embed(twice), "takes .* codes per .*, got", "twice as many codes")


@contract()
def bad_signals_are_refused_with_what_came(tokenizer: Tokenizer) -> None:
    modality = tokenizer.modality
    x = signal(tokenizer, 2, sizes(tokenizer)[0])
    counted = range(modality.axis, modality.axis + len(modality.axes))
    channels = next(axis for axis in range(1, x.ndim) if axis not in counted)
    highest = x == x.nan_to_num().max()
    cases: list[tuple[str, Any, str]] = [
        ("an array", x.cpu().numpy(), "got ndarray"),
        ("no batch axis", x[0], r"got \["),
        ("twice the channels", torch.cat([x, x], dim=channels), r"got \["),
        ("integers", (x * 255).nan_to_num().to(torch.uint8), "got torch.uint8"),
        ("no item", x[:0], "empty"),
        ("no step", x.narrow(counted[-1], 0, 0), "empty"),
        ("NaN in one value", x.masked_fill(highest, torch.nan), "not finite"),
        ("an infinite value", x.masked_fill(highest, torch.inf), "not finite"),
    ]
    if math.isnan(modality.padding_value):  # where NaN stands for what is absent
        cases.append(("nothing but NaN", torch.full_like(x, torch.nan), "an item without a single atom"))
    for what, bad, message in cases:
        expect_refused(partial(tokenizer.encode, bad), message, what)


@contract()
def bad_codes_are_refused_with_what_came(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    cases: list[tuple[str, Any, str]] = [
        ("a list", codes.tolist(), "got list"),
        ("no batch axis", codes[0], r"got \["),
        ("one codebook too many", torch.cat([codes[:, :1]] * (1 + tokenizer.spec.num_codebooks), dim=1), r"got \["),
        ("floating codes", codes.float(), "integer codes"),
        ("no item", codes[:0], "empty"),
        ("codes below 0", codes - codes.max() - 1, "out of range"),
        ("codes beyond the codebook", codes + tokenizer.spec.codebook_sizes[0], "out of range"),
    ]
    if codes.shape[1] > 1 and not tokenizer.spec.residual:
        cases.append(("one codebook too few", codes[:, 1:], r"got \["))
    for what, bad, message in cases:
        expect_refused(partial(tokenizer.embed, bad), message, what)
    if tokenizer.encode_only is None:
        beyond = tuple(length + 1 for length in tokenizer.size_of(tokenizer.decode(codes)))
        expect_refused(lambda: tokenizer.decode(codes, size=beyond), "expected size", f"size={beyond}")


@contract()
def an_option_that_a_system_lacks_is_named(tokenizer: Tokenizer) -> None:
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    own = tokenizer.spec.partial.option if tokenizer.spec.partial else None
    others = [name for name in ("num_bananas", "num_codebooks", "num_tokens", "num_scales") if name != own]
    for option in others:
        eight: dict[str, Any] = {option: 8}
        message = f"has no option '{option}'"
        expect_refused(partial(tokenizer.encode, x, **eight), f"encode {message}", f"encode({option}=8)")
        if tokenizer.encode_only is None:
            codes = tokenizer.encode(x)
            expect_refused(partial(tokenizer.decode, codes, **eight), f"decode {message}", f"decode({option}=8)")


@contract(lambda subject: subject.modality.batches_have_lengths)
def bad_lengths_are_refused(tokenizer: Tokenizer) -> None:
    size = sizes(tokenizer)[0]
    x, steps = signal(tokenizer, 2, size), size[0]
    for lengths in ([steps], [0, steps], [1, steps + 1], [1.0, 2.0]):
        expect_refused(
            partial(tokenizer.encode, x, lengths=torch.tensor(lengths)),
            "expected lengths",
            f"lengths={lengths} of a batch of 2 with {steps} steps",
        )


@contract(lambda subject: not subject.modality.batches_have_lengths)
def signals_of_a_batch_that_is_not_padded_have_no_lengths(tokenizer: Tokenizer) -> None:
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    message = f"{tokenizer.modality.noun[1]} of a batch have one size"
    expect_refused(lambda: tokenizer.encode(x, lengths=torch.tensor([1])), message, "lengths=[1]")


@contract(lambda subject: subject.spec.sample_rate is not None)
def another_sample_rate_is_refused(tokenizer: Tokenizer) -> None:
    rate = tokenizer.spec.sample_rate or 0
    x = signal(tokenizer, 2, sizes(tokenizer)[0])
    message = f"takes {rate} Hz, got {rate - 1} Hz"
    expect_refused(lambda: tokenizer.encode(x, sample_rate=rate - 1), message, f"sample_rate={rate - 1}")


CONTRACTS: tuple[Contract, ...] = (
    a_system_without_a_decoder_says_why,
    codes_without_the_codebook_of_their_signal_are_refused,
    a_system_without_a_teacher_says_so,
    a_system_that_cannot_stream_says_why,
    another_size_than_the_only_one_is_refused,
    bad_signals_are_refused_with_what_came,
    bad_codes_are_refused_with_what_came,
    an_option_that_a_system_lacks_is_named,
    bad_lengths_are_refused,
    signals_of_a_batch_that_is_not_padded_have_no_lengths,
    another_sample_rate_is_refused,
)
