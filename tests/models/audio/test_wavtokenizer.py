"""What is WavTokenizer's own: chunks, the inverse STFT."""

import math
import subprocess
import sys

import pytest
import torch

import zoo
from zoo.demo.samples import samples
from zoo.layers.vocos import overlap_add
from zoo.testing import small

NAMES = ["wavtokenizer-small-600-24k-4096", "wavtokenizer-small-320-24k-4096"]


@pytest.mark.parametrize("name", NAMES)
def test_any_length_from_one_sample_on_is_encoded(name):
    tokenizer = small(name)
    for length in [*range(1, 30), 319, 320, 321, 601]:
        codes = tokenizer.encode(torch.randn(1, 1, length) * 0.1)
        assert codes.shape[-1] == math.ceil(length / tokenizer.spec.hop_length)
        assert tokenizer.decode(codes, size=length).shape == (1, 1, length)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [0.2, 0.31, 1.0])
def test_chunks_change_neither_latent_nor_signal(name, seconds):
    tokenizer = small(name)
    audio = torch.randn(2, 1, 24000 * 2 + 77, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        whole = tokenizer.to_latent(audio, chunk_seconds=60.0)
        torch.testing.assert_close(tokenizer.to_latent(audio, chunk_seconds=seconds), whole)
        signal = tokenizer.from_latent(whole, chunk_seconds=60.0)
        torch.testing.assert_close(tokenizer.from_latent(whole, chunk_seconds=seconds), signal)
    codes = tokenizer.encode(audio, chunk_seconds=60.0)
    assert torch.equal(tokenizer.encode(audio, chunk_seconds=seconds), codes)


def test_a_chunk_shorter_than_a_frame_is_refused():
    with pytest.raises(zoo.InputError, match=r"at least one frame, .*got 0\.001"):
        small(NAMES[0]).encode(torch.zeros(1, 1, 600), chunk_seconds=0.001)


def test_decoded_speech_is_as_loud_as_the_original():
    tokenizer = zoo.load("wavtokenizer-nano")
    for sample in samples("audio").values():
        audio = tokenizer.preprocess(sample)
        decoded = tokenizer.restore(tokenizer.encode(audio), like=audio)
        level = 10 * torch.log10(decoded.square().mean() / audio.square().mean())
        assert abs(level) < 1, f"{level:.1f} dB"


def test_a_window_of_decoding_that_holds_the_clip_changes_nothing_and_a_shorter_one_little():
    tokenizer = zoo.load("wavtokenizer-nano")
    times = torch.arange(24000 * 6) / 24000
    audio = (0.1 * torch.sin(900 * times * (1 + 0.1 * torch.sin(9 * times))))[None, None]
    codes = tokenizer.encode(audio)
    whole = tokenizer.decode(codes)
    assert torch.equal(tokenizer.decode(codes, window_seconds=6), whole)
    windows = tokenizer.decode(codes, window_seconds=2)
    assert windows.shape == whole.shape
    assert 0 < (windows - whole).square().sum() < 0.1 * whole.square().sum()


def test_the_signal_of_a_window_does_not_depend_on_what_is_far_from_it():
    tokenizer = zoo.load("wavtokenizer-nano")
    codes = tokenizer.encode(torch.randn(1, 1, 24000 * 4, generator=torch.Generator().manual_seed(0)) * 0.1)
    changed = torch.cat([codes[..., :225], codes[..., 225:].flip(-1)], dim=-1)  # from 3 seconds on
    before, after = (tokenizer.decode(each, window_seconds=1)[..., :24000] for each in (codes, changed))
    assert torch.equal(before, after)


def test_a_window_of_decoding_is_a_number_of_seconds():
    with pytest.raises(zoo.InputError, match=r"expected window_seconds as a number of seconds, .*got 'all'"):
        small(NAMES[0]).decode(torch.zeros(1, 1, 4, dtype=torch.int64), window_seconds="all")


def test_overlapping_frames_add_up():
    frames = torch.randn(2, 5, 12)
    expected = torch.zeros(2, 4 * 3 + 12)
    for t in range(5):
        expected[:, 3 * t : 3 * t + 12] += frames[:, t]
    torch.testing.assert_close(overlap_add(frames, 3), expected)


def test_published_variants_have_the_published_number_of_parameters():
    for name, encoder, head in zip(NAMES, (8.30, 8.80), (1.85, 0.99), strict=True):
        variant = zoo.info(name)
        with torch.device("meta"):
            tokenizer = variant.builder(variant.spec, **variant.config)
        count = sum(p.numel() for p in tokenizer.encoder.parameters()) / 1e6
        assert count == pytest.approx(encoder, abs=0.006)
        assert sum(p.numel() for p in tokenizer.decoder.head.parameters()) / 1e6 == pytest.approx(head, abs=0.006)


LONG = """
import pathlib, re, sys, torch, zoo
tokenizer = zoo.create(sys.argv[1]).eval()
audio = torch.randn(1, 1, 600 * 24000) * 0.1
codes = tokenizer.encode(audio)
assert tokenizer.decode(codes, size=audio.shape[-1]).shape == audio.shape
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ten_minutes_stay_under_two_gibibytes(name):
    peak = subprocess.run([sys.executable, "-c", LONG, name], check=True, capture_output=True, text=True).stdout
    assert int(peak) < 2 * 2**20  # KiB of this process alone: ru_maxrss would begin with the parent's
