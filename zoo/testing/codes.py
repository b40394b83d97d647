"""Contracts about codes: where they lie, what they depend on, and what they decode to."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import count, cycle
from typing import Any

import torch

from zoo import loading
from zoo.spec import TokenizerSpec
from zoo.testing.contract import Contract, contract, expect, expect_equal, expect_refused
from zoo.testing.subject import decode_options, signal, sizes
from zoo.tokenizer import Tokenizer


@contract()
def codes_are_integers_on_the_grid(tokenizer: Tokenizer) -> None:
    spec = tokenizer.spec
    for size in sizes(tokenizer):
        codes = tokenizer.encode(signal(tokenizer, 2, size))
        shape = (2, len(spec.default_sizes), *spec.grid(size))
        expect(codes.dtype == torch.int64, f"expected codes of torch.int64, got {codes.dtype}")
        expect(codes.shape == shape, f"size {size}: expected codes {list(shape)}, got {list(codes.shape)}")
        expect(codes.min() >= 0, f"size {size}: expected codes of at least 0, got {int(codes.min())}")
        for codebook, entries in enumerate(spec.default_sizes):
            most = int(codes[:, codebook].max())
            expect(most < entries, f"codebook {codebook} has {entries} entries, and there is a code {most}")


@contract(lambda subject: subject.decodes)
def codes_decode_to_the_size_that_went_in(tokenizer: Tokenizer) -> None:
    for size in sizes(tokenizer):
        x = signal(tokenizer, 2, size)
        decoded = tokenizer.decode(tokenizer.encode(x), size=size)
        shape = tokenizer.modality.target(x, tokenizer.spec).shape
        expect(decoded.shape == shape, f"expected a signal {list(shape)}, got {list(decoded.shape)}")
        expect(decoded.isfinite().all(), f"size {size}: the decoded signal has values that are not finite")
        if tokenizer.modality.has_unit_range:
            least, most = float(decoded.min()), float(decoded.max())
            expect(0 <= least <= most <= 1, f"expected a signal in [0, 1], got {least:g} to {most:g}")


@contract()
def an_item_has_the_same_codes_alone_and_in_a_batch(tokenizer: Tokenizer) -> None:
    for size in sizes(tokenizer):
        x = signal(tokenizer, 3, size)
        together = tokenizer.encode(x)
        for i in range(3):
            expect_equal(together[i : i + 1], tokenizer.encode(x[i : i + 1]), f"item {i} of a batch of size {size}")


@contract(lambda subject: subject.modality.batches_have_lengths)
def padding_does_not_change_codes(tokenizer: Tokenizer) -> None:
    step, axis = tokenizer.spec.downsample[0], tokenizer.modality.axis
    long, short = 5 * step + 4, 2 * step + step // 2 + 3
    lengths = torch.tensor([long, short, 1, short])
    sides = tokenizer.spec.sizes[0] if tokenizer.spec.sizes else tokenizer.spec.downsample[1:]
    x = signal(tokenizer, 4, (long, *sides))
    codes = tokenizer.encode(x, lengths=lengths)
    positions = tokenizer.code_lengths(lengths).tolist()
    for i, (length, valid) in enumerate(zip(lengths.tolist(), positions, strict=True)):
        alone = tokenizer.encode(x[i : i + 1].narrow(axis, 0, length))
        what = f"length {length} in a batch padded to {long}"
        expect(alone.shape[2] == valid, f"length {length}: code_lengths is {valid}, the codes have {alone.shape[2]}")
        expect_equal(codes[i : i + 1, :, :valid], alone, what)
        expect(not codes[i, :, valid:].any(), f"{what}: codes after code_lengths are not 0")


@contract(lambda subject: subject.spec.chunk_frames is not None)
def signals_are_encoded_and_decoded_window_by_window(tokenizer: Tokenizer) -> None:
    spec, axis = tokenizer.spec, tokenizer.modality.axis
    (option,) = tokenizer.modality.window_options
    window = min(1 + spec.downsample[0], spec.chunk_frames or 1 + spec.downsample[0])
    x = signal(tokenizer, 1, (2 * window + 2, *spec.downsample[1:]))
    size = tokenizer.size_of(x)
    options: dict[str, Any] = {option: window}
    codes = tokenizer.encode(x, **options)
    parts = [tokenizer.encode(part) for part in x.split(window, dim=axis)]
    expect_equal(codes, torch.cat(parts, dim=2), f"codes of {option}={window}, and of the windows one by one")
    grid = spec.grid(size, window)
    expect(codes.shape[2:] == grid, f"expected codes on {list(grid)}, got {list(codes.shape[2:])}")
    decoded = tokenizer.decode(codes, size=size, **options)
    first, last = (
        tokenizer.decode(codes).narrow(axis, 0, length) for codes, length in ((parts[0], window), (parts[2], 2))
    )
    expect_equal(decoded.narrow(axis, 0, window), first, "the first window decoded with the others, and alone")
    expect_equal(decoded.narrow(axis, 2 * window, 2), last, "the last window decoded with the others, and alone")
    none: dict[str, Any] = {option: 0}
    expect_refused(
        lambda: tokenizer.encode(x, **none), f"expected {option} as an integer of at least 1, got 0", f"{option}=0"
    )


@contract(lambda subject: subject.spec.causal)
def later_steps_do_not_change_the_codes_of_earlier_ones(tokenizer: Tokenizer) -> None:
    spec, axis = tokenizer.spec, tokenizer.modality.axis
    past = next(length for length in count(1) if spec.code_length(length + 1) > 3)
    size = (past + spec.downsample[0], *spec.downsample[1:])
    x, other = signal(tokenizer, 1, size), signal(tokenizer, 1, size, seed=1)
    changed = torch.cat([x.narrow(axis, 0, past), other.narrow(axis, past, spec.downsample[0])], dim=axis)
    before, after = tokenizer.encode(x), tokenizer.encode(changed)
    expect_equal(after[:, :, :3], before[:, :, :3], f"codes of the first {past} steps, when later ones change")
    expect(not torch.equal(after[:, :, 3:], before[:, :, 3:]), "the codes of the steps that change stay as they are")


@contract(lambda subject: subject.streams)
def a_stream_gives_the_codes_and_the_signal_of_the_whole(tokenizer: Tokenizer) -> None:
    step = tokenizer.spec.hop_length
    x = signal(tokenizer, 2, (5 * step + step // 3,))
    whole = tokenizer.encode(x, **tokenizer.stream_options)
    decoded = tokenizer.decode(whole)
    for lengths in ([step], [1, step - 1, step + 1], [7 * step], [0, 2 * step + 5, step // 2]):
        parts, rest = [], x
        with tokenizer.stream() as stream:
            for length in cycle(lengths):
                parts.append(stream.encode(rest[:, :, :length]))
                rest = rest[:, :, length:]
                if not rest.shape[2]:
                    break
            parts.append(stream.flush())
            signals = [stream.decode(codes) for codes in parts]
        expect_equal(torch.cat(parts, dim=2), whole, f"codes of parts of {lengths} samples, and of the whole")
        difference = float((torch.cat(signals, dim=2) - decoded).abs().max())
        expect(difference <= 1e-5, f"parts of {lengths} samples: the signal differs by {difference:.3g}")


@contract(lambda subject: subject.streams)
def a_code_comes_as_soon_as_its_samples_are_there(tokenizer: Tokenizer) -> None:
    latency = tokenizer.spec.latency or 0
    x = signal(tokenizer, 1, (latency,))
    with tokenizer.stream() as stream:
        for samples, frames in ((x[:, :, :-1], 0), (x[:, :, -1:], 1)):
            codes = stream.encode(samples)
            expect(codes.shape[2] == frames, f"expected {frames} frames of codes, got {codes.shape[2]}")


@contract(lambda subject: subject.spec.partial is not None and subject.decodes)
def the_first_codes_decode_alone(tokenizer: Tokenizer) -> None:
    size = sizes(tokenizer)[0]
    few = tokenizer.spec.partial_of(size)
    assert few is not None, "the contract applies"
    x = signal(tokenizer, 2, size)
    every: dict[str, Any] = {few.option: few.most}
    codes = tokenizer.encode(x, **every)
    expect(codes.shape[few.axis] == few.length(few.most), f"{few.option}={few.most}: got codes {list(codes.shape)}")
    expect_equal(tokenizer.encode(x), few.first(codes, few.default), f"the first {few.default} codes, and encode()")
    for n in sorted({1, min(7, few.most), few.most}):
        options: dict[str, Any] = {few.option: n}
        first = tokenizer.encode(x, **options)
        expect_equal(first, few.first(codes, n), f"the first {n} codes, and encode({few.option}={n})")
        whole, alone = (
            tokenizer.decode(codes, **options, **decode_options(tokenizer)),
            tokenizer.decode(first, **decode_options(tokenizer)),
        )
        expect_equal(whole, alone, f"decode({few.option}={n}), and decode of {n} codes")
    for bad in (0, few.most + 1, 2.5, True):
        options, message = {few.option: bad}, f"expected {few.option} from 1 to {few.most}, got {bad}"
        expect_refused(partial(tokenizer.encode, x, **options), message, f"encode({few.option}={bad})")
        expect_refused(partial(tokenizer.decode, codes, **options), message, f"decode({few.option}={bad})")
    if tokenizer.modality.batches_have_lengths:
        options = {few.option: 1}
        lengths = torch.full((2,), x.shape[tokenizer.modality.axis])
        expect_equal(tokenizer.encode(x, lengths, **options), few.first(codes, 1), f"{few.option}=1 with lengths")


@contract(lambda subject: bool(subject.spec.other_scales and wide_and_high(subject.spec)))
def each_size_has_scales_of_its_own(tokenizer: Tokenizer) -> None:
    spec = tokenizer.spec
    for size in wide_and_high(spec)[:2]:
        x = signal(tokenizer, 2, size)
        codes = tokenizer.encode(x)
        expect(codes.shape[2:] == spec.grid(size), f"expected codes on {spec.grid(size)}, got {list(codes.shape[2:])}")
        decoded = tokenizer.decode(codes, size=size)
        expect(decoded.shape == x.shape, f"expected a signal {list(x.shape)}, got {list(decoded.shape)}")
        first = tokenizer.encode(x, num_scales=2)
        alone, whole = tokenizer.decode(first, size), tokenizer.decode(codes, size, num_scales=2)
        expect_equal(alone, whole, f"two scales of {size} decoded alone, and decode(num_scales=2)")
        expect_refused(partial(tokenizer.decode, codes), "may be of .* give size", "codes of two sizes, without a size")


def wide_and_high(spec: TokenizerSpec) -> list[tuple[int, ...]]:
    """Return sizes of which there is the same on its side, and these, smallest first: codes do not tell which it is."""
    wide = sorted(size for size in spec.sizes if size[0] < size[1] and size[::-1] in spec.sizes)
    return [side for size in wide for side in (size, size[::-1])]


@contract(lambda subject: subject.stands_alone)
def decoding_starts_from_what_embed_gives(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    with torch.no_grad():
        latent = tokenizer.embed(codes)
    grid = tokenizer.spec.scales[-1] if tokenizer.spec.scales else codes.shape[2:]
    shape = (1, tokenizer.quantizer.dim, *grid)
    expect(latent.shape == shape, f"expected a latent {list(shape)}, got {list(latent.shape)}")
    if tokenizer.encode_only is not None:
        return
    with torch.no_grad():
        network = tokenizer.from_latent(latent, **decode_options(tokenizer))
    expected = tokenizer.modality.finish(network * tokenizer.input_std + tokenizer.input_mean)
    expect_equal(tokenizer.decode(codes, **decode_options(tokenizer)), expected, "decode, and from_latent of embed")


@contract(lambda subject: subject.teaches)
def features_come_from_the_codes_alone(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(signal(tokenizer, 2, sizes(tokenizer)[0]))
    features = tokenizer.features(codes)
    shape, dtype = list(features.shape), features.dtype
    expect(len(shape) >= 2 and shape[0] == 2, f"expected features [2, *positions, width], got {shape}")
    expect(dtype == tokenizer.dtype, f"expected features of {tokenizer.dtype}, got {dtype}")
    expect(features.isfinite().all(), "the features have values that are not finite")
    alone = tokenizer.features(codes[:1])
    difference = float((alone - features[:1]).abs().max())
    expect(difference <= 1e-4 * float(alone.abs().max()), f"alone and in a batch, features differ by {difference:.3g}")


@contract()
def what_is_saved_gives_the_same_codes(tokenizer: Tokenizer) -> None:
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        loaded = loading.load(folder, device=tokenizer.device)
        expect(loaded.spec == tokenizer.spec, f"expected {tokenizer.spec}, got {loaded.spec}")
        expect_equal(loaded.encode(x), tokenizer.encode(x), "codes of the loaded tokenizer, and of the saved one")


CONTRACTS: tuple[Contract, ...] = (
    codes_are_integers_on_the_grid,
    codes_decode_to_the_size_that_went_in,
    an_item_has_the_same_codes_alone_and_in_a_batch,
    padding_does_not_change_codes,
    signals_are_encoded_and_decoded_window_by_window,
    later_steps_do_not_change_the_codes_of_earlier_ones,
    a_stream_gives_the_codes_and_the_signal_of_the_whole,
    a_code_comes_as_soon_as_its_samples_are_there,
    the_first_codes_decode_alone,
    each_size_has_scales_of_its_own,
    decoding_starts_from_what_embed_gives,
    features_come_from_the_codes_alone,
    what_is_saved_gives_the_same_codes,
)
