"""Streams: codes of real speech that arrives in parts, samples of codes that do, and what a stream refuses."""

import random

import pytest
import torch

import zoo
from tests.support.codebooks import spread_codebooks
from zoo.demo.samples import samples
from zoo.testing import small


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """A sentence `[1, 1, samples]` at 24 kHz; the last frame is not whole."""
    return zoo.create("mimi", small=True).preprocess(samples("audio")["river"])


@pytest.fixture(scope="module")
def mimi(speech) -> zoo.Tokenizer:
    return spread_codebooks(small("mimi"), speech)


def lengths(total: int, seed: int):
    """Random lengths, from none to several frames, that add up to at least `total`."""
    generator = random.Random(seed)
    while total > 0:
        length = generator.choice([0, 1, 7, 480, 1920, generator.randrange(1, 9000)])
        yield length
        total -= length


@pytest.mark.parametrize("seed", range(5))
def test_codes_of_speech_in_random_parts_are_those_of_the_whole(mimi, speech, seed):
    whole = mimi.encode(speech)
    assert all(row.unique().numel() > 10 for row in whole[0])
    parts, start = [], 0
    with mimi.stream() as stream:
        for length in lengths(speech.shape[-1], seed):
            parts.append(stream.encode(speech[..., start : start + length]))
            start += length
            assert sum(part.shape[-1] for part in parts) == min(start, speech.shape[-1]) // 1920
        parts.append(stream.flush())
    assert torch.equal(torch.cat(parts, dim=-1), whole)


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_codes_in_random_parts_are_those_of_the_whole(mimi, speech, seed):
    codes = mimi.encode(speech)
    generator, parts, start = random.Random(seed), [], 0
    with mimi.stream() as stream:
        while start < codes.shape[-1]:
            step = generator.randrange(5)
            parts.append(stream.decode(codes[..., start : start + step]))
            start += step
    torch.testing.assert_close(torch.cat(parts, dim=-1), mimi.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_trained_weights_stream_codes_and_sound_of_real_speech(speech, seed):
    tokenizer = zoo.load("mimi-nano")
    whole = tokenizer.encode(speech)
    codes, sounds, start = [], [], 0
    with tokenizer.stream() as stream:
        for length in lengths(speech.shape[-1], seed):
            codes.append(stream.encode(speech[..., start : start + length]))
            sounds.append(stream.decode(codes[-1]))
            start += length
        codes.append(stream.flush())
        sounds.append(stream.decode(codes[-1]))
    assert torch.equal(torch.cat(codes, dim=-1), whole)
    torch.testing.assert_close(torch.cat(sounds, dim=-1), tokenizer.decode(whole), atol=1e-5, rtol=0)


def test_options_of_encode_hold_for_all_parts_of_a_stream(mimi, speech):
    with mimi.stream(num_codebooks=3, pad_waveform=True) as stream:
        codes = torch.cat([stream.encode(part) for part in speech.split(5000, dim=-1)] + [stream.flush()], dim=-1)
    assert torch.equal(codes, mimi.encode(speech, num_codebooks=3, pad_waveform=True))


def test_the_state_does_not_grow(mimi, speech):
    def held(memory) -> int:
        tensors = [value for state in memory.values() for value in (state if isinstance(state, tuple) else (state,))]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors if isinstance(tensor, torch.Tensor))

    encoding, decoding, sizes = {}, {}, []
    for part in speech[..., : 1920 * 24].split(1920, dim=-1):
        codes = mimi.encode(part, memory=encoding)
        mimi.decode(codes, memory=decoding)
        sizes.append((held(encoding), held(decoding)))
    assert sizes[8:] == [sizes[8]] * 16  # the attention's window of 8 is full by then


def test_streams_of_one_tokenizer_do_not_disturb_each_other(mimi, speech):
    whole = mimi.encode(speech)
    with mimi.stream() as one, mimi.stream() as other:
        parts = []
        for part in speech.split(4000, dim=-1):
            parts.append(one.encode(part))
            other.encode(part.flip(-1))
        parts.append(one.flush())
    assert torch.equal(torch.cat(parts, dim=-1), whole)


def test_a_stream_of_nothing_has_no_codes(mimi):
    with mimi.stream() as stream:
        assert stream.encode(torch.zeros(1, 1, 0)).shape == (1, 8, 0)
        codes = stream.flush()
        assert codes.shape == (1, 8, 0)
        assert stream.decode(codes).shape == (1, 1, 0)


def test_the_latency_is_a_frame_and_is_none_where_all_samples_are_needed():
    assert zoo.info("mimi").spec.latency == 1920
    assert zoo.info("wavtokenizer").spec.latency is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wavtokenizer-nano", "after it.* chunk_seconds="),
        ("cosmos-dv-nano", "windows of spec.chunk_frames"),
        ("wetok-nano", "after it"),
        ("speechtokenizer-hubert-avg", "LSTM runs both ways"),
        ("bigcodec", r"look 0\.3 seconds ahead"),
        ("xy-tokenizer", "windows of 30 seconds"),
        ("glm4-voice-tokenizer", "block of 4 seconds"),
        ("s3-tokenizer-v2-25hz", "window of 30 seconds"),
        ("levo-codec", "windows of 40 seconds"),
        ("snac-44khz", r"look up to 0\.2 seconds ahead, .*window"),
    ],
)
def test_a_system_that_cannot_stream_says_why(name, reason):
    with pytest.raises(zoo.InputError, match=f"{name} cannot stream: .*{reason}"):
        small(name).stream()


def test_what_a_stream_cannot_take_is_refused(mimi, speech):
    with pytest.raises(zoo.InputError, match="has no option 'memory'"):
        mimi.stream(memory={})
    with pytest.raises(zoo.InputError, match="expected num_codebooks from 1 to 32, got 33"):
        mimi.stream(num_codebooks=33)
    with pytest.raises(zoo.InputError, match="the state would grow without end"):
        mimi.stream(windowed=False)
    with mimi.stream() as stream:
        with pytest.raises(zoo.InputError, match=r"expected audio as \[batch, 1, samples\]"):
            stream.encode(speech[0])
        with pytest.raises(zoo.InputError, match="not finite"):
            stream.encode(torch.full((1, 1, 5), torch.nan))
        stream.encode(speech[..., :100])
        with pytest.raises(zoo.InputError, match="expected a batch of 1, as before, got 2"):
            stream.encode(torch.zeros(2, 1, 5))
        codes = stream.flush()
        with pytest.raises(zoo.InputError, match="flushed"):
            stream.encode(speech[..., :100])
        stream.decode(codes)
        with pytest.raises(zoo.InputError, match="expected codes of a batch of 1, as before, got 2"):
            stream.decode(torch.zeros(2, 8, 1, dtype=torch.int64))
    with pytest.raises(zoo.InputError, match="closed"):
        stream.decode(codes)
