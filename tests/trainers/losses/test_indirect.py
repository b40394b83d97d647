"""A teacher that hears what one codebook decodes to: Whisper's encoder from local files, and the loss made of it."""

import pytest
import torch
from huggingface_hub import constants
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from zoo.errors import InputError
from zoo.testing import small
from zoo.trainers.losses.indirect import WHISPER_TEACHERS, IndirectDistillation, OwnTeacher, WhisperTeacher


@pytest.fixture
def teacher(tmp_path, monkeypatch) -> WhisperModel:
    """A small network with random weights, in the place of whisper-tiny."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=8,
    )
    for key in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        setattr(config, key, 0)
    published = WhisperModel(config).eval()
    published.save_pretrained(tmp_path / "whisper")
    monkeypatch.setitem(WHISPER_TEACHERS, "whisper-tiny", str(tmp_path / "whisper"))
    return published


def speech(seconds: float, rate: int = 16000) -> torch.Tensor:
    return torch.randn(2, 1, round(seconds * rate), generator=torch.Generator().manual_seed(0)) * 0.1


@torch.no_grad()
def test_it_hears_what_the_published_network_hears_in_thirty_seconds(teacher):
    audio = speech(30)
    mel = WhisperFeatureExtractor()(list(audio[:, 0].numpy()), sampling_rate=16000, return_tensors="pt").input_features
    expected = teacher.get_encoder()(mel).last_hidden_state
    torch.testing.assert_close(WhisperTeacher("whisper-tiny")(audio), expected, atol=2e-4, rtol=0)


def test_shorter_audio_is_not_padded(teacher):
    assert WhisperTeacher("whisper-tiny")(speech(0.5)).shape == (2, 25, 16)


@pytest.mark.parametrize("name", ["speechtokenizer-hubert-avg", "mimi"])
def test_the_loss_reaches_encoder_and_decoder_and_leaves_the_teacher_alone(teacher, name):
    tokenizer = small(name).train()
    loss = IndirectDistillation("whisper-tiny", tokenizer)
    assert not list(loss.parameters())
    audio = speech(0.5, tokenizer.spec.sample_rate)
    output = tokenizer(audio)
    vectors = tokenizer.quantizer.vectors_of(0, output.latent.movedim(1, -1), output.codes.movedim(1, -1))
    loss(vectors.movedim(-1, 1), audio).backward()
    for part in (tokenizer.encoder, tokenizer.decoder):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
    assert all(parameter.grad is None for parameter in loss.teacher.frozen.network.parameters())


def test_the_loss_is_the_distance_from_what_the_codebook_alone_decodes_to(teacher):
    tokenizer = small("speechtokenizer-hubert-avg")
    audio = speech(0.5)
    codes = tokenizer.encode(audio, num_codebooks=1)
    hear = WhisperTeacher("whisper-tiny")
    with torch.no_grad():
        heard, original = hear(tokenizer.decode(codes, size=audio.shape[-1])), hear(audio)
        loss = IndirectDistillation("whisper-tiny", tokenizer)(tokenizer.embed(codes), audio)
    expected = 1 - functional.cosine_similarity(heard, original, dim=-1).mean()
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_the_loss_is_zero_for_what_the_codebook_decodes_to(teacher):
    tokenizer = small("speechtokenizer-hubert-avg")
    codes = tokenizer.encode(speech(0.5), num_codebooks=1)
    loss = IndirectDistillation("whisper-tiny", tokenizer)(tokenizer.embed(codes), tokenizer.decode(codes))
    assert loss < 1e-5


def test_a_teacher_that_is_not_at_hand_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="hf download openai/whisper-small"):
        WhisperTeacher("whisper-small")
    with pytest.raises(InputError, match="unknown teacher 'whisper-huge'; expected one of whisper-tiny"):
        WhisperTeacher("whisper-huge")


class Own(torch.nn.Module):
    """Energies of 10 ms in eight places, of audio at 8 kHz."""

    sample_rate = 8000

    def forward(self, audio):
        return audio.unfold(-1, 80, 80).unflatten(-1, (8, 10)).square().mean(-1)


def test_a_network_of_ones_own_is_a_teacher_by_its_name():
    tokenizer = small("speechtokenizer-hubert-avg").train()
    loss = IndirectDistillation(f"{__name__}:Own", tokenizer)
    assert loss.teacher(speech(0.5, 8000)).shape == (2, 50, 8)
    audio = speech(0.5)
    vectors = tokenizer.to_latent(audio).detach().requires_grad_()
    loss(vectors, audio).backward()
    assert vectors.grad is not None and vectors.grad.any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:Own", "cannot be had: ModuleNotFoundError"),
        ("torch:NoSuch", "cannot be had: AttributeError"),
        ("collections:OrderedDict", "as a torch.nn.Module, got OrderedDict"),
    ],
)
def test_a_teacher_of_ones_own_that_is_none_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        OwnTeacher(name)
