"""Tokenizers as candidates: their rates, and what comes back."""

import pytest
import torch

import zoo
from tests.support.bench import voice
from zoo.bench.candidates import LazyTokenizer, TokenizerCandidate, doublings
from zoo.bench.signals import Preprocessing
from zoo.bench.timing import TimedCandidate
from zoo.media import resample
from zoo.modalities import Signal


def test_first_tokens_are_a_curve(install):
    like = "one-d-piece-s-256"
    tokenizer = install("tiny-piece", like, {}, zoo.info(like).builder.small)
    lazy = LazyTokenizer("tiny-piece")
    assert [setting["num_tokens"] for setting in lazy.settings] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert doublings(12) == [1, 2, 4, 8] and doublings(1) == []
    preprocessing = Preprocessing.of([tokenizer.spec], {})
    assert preprocessing.resolution == 256
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    whole = tokenizer.encode(image)
    for number in (1, 4, 256):
        candidate = TokenizerCandidate("tiny-piece", lazy, {"num_tokens": number}, 0)
        num_bytes, codes = candidate.compress(image)
        assert num_bytes == -(-number * 12 // 8) and torch.equal(codes, whole[:, :, :number])
        assert torch.equal(candidate.restore(codes, image), lazy.tokenizer().decode(codes))


def test_first_codebooks_are_a_curve(tiny_residual):
    lazy = LazyTokenizer("tiny-residual")
    assert [setting["num_codebooks"] for setting in lazy.settings] == [1, 2, 4, 6]
    sound = voice(0.5, 8000)[None]
    whole = tiny_residual.encode(sound, num_codebooks=6)
    for setting in lazy.settings:
        candidate = TokenizerCandidate("tiny-residual", lazy, setting, 0)
        num_bytes, codes = candidate.compress(sound)
        number = setting["num_codebooks"]
        assert num_bytes == number * 500 * 4 / 8 and torch.equal(codes, whole[:, :number])
        assert torch.equal(candidate.restore(codes, sound), tiny_residual.decode(codes))


def test_the_numbers_of_codebooks_can_be_chosen(tiny_residual, tiny_wavtokenizer):
    assert LazyTokenizer("tiny-residual", num_codebooks=[3, 5]).settings == [{"num_codebooks": 3}, {"num_codebooks": 5}]
    assert LazyTokenizer("tiny-wavtokenizer", num_codebooks=[3]).settings == [{}]
    with pytest.raises(zoo.InputError, match="expected num_codebooks from 1 to 6, got 7"):
        LazyTokenizer("tiny-residual", num_codebooks=[1, 7])


def test_a_tokenizer_of_another_rate_gives_back_the_length(tiny_wavtokenizer):
    preprocessing = Preprocessing(modality="audio", sample_rate=32000, channels=1)
    candidate = TokenizerCandidate("tiny", LazyTokenizer("tiny-wavtokenizer"), {}, 0)
    signal = Signal(voice(1.0, 32000)[:, :31111])
    outcome = TimedCandidate(candidate, preprocessing, "cpu")(signal)
    assert outcome.reconstruction.values.shape == signal.values.shape
    whole = tiny_wavtokenizer.encode(resample(signal.values[None], 32000, 24000))
    assert torch.equal(outcome.payload, whole)
