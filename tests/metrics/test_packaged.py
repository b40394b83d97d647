"""Metrics whose networks ship with packages, delay that is not distortion, and settings of the image metrics."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image, ImageDraw, ImageFont

from zoo.demo.samples import samples
from zoo.errors import WeightsUnavailableError
from zoo.media import load_audio, to_image_tensor
from zoo.metrics import METRICS, log_f0_rmse, si_sdr, voicing_error
from zoo.metrics.audio import aligned_si_sdr
from zoo.metrics.opinion import dnsmos, dnsmos_p808, opinion_missing, plcmos
from zoo.metrics.reading import character_error_rate, error_rate, reader_missing, wavlm_similarity
from zoo.metrics.speech import pitch_missing

has_opinions = pytest.mark.skipif(opinion_missing() is not None, reason="speechmos is not installed")
has_reader = pytest.mark.skipif(reader_missing() is not None, reason="rapidocr-onnxruntime is not installed")
has_swift_f0 = pytest.mark.skipif(pitch_missing("swift-f0") is not None, reason="swift-f0 is not installed")


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """`[1, 1, samples]` at 16 kHz."""
    return load_audio(next(iter(samples("audio").values())), 16000, 1)[None]


def noisy(signal: torch.Tensor, level: float) -> torch.Tensor:
    return (signal + level * torch.randn(signal.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


# Delay


@pytest.mark.parametrize("delay", [0, 7, -113, 1500])
def test_a_constant_delay_is_no_distortion(speech, delay):
    worse = noisy(speech, 0.01)
    moved = torch.roll(worse, delay, dims=2)
    if delay > 0:
        first, second = worse[..., :-delay], speech[..., :-delay]
    elif delay < 0:
        first, second = worse[..., -delay:], speech[..., -delay:]
    else:
        first, second = worse, speech
    assert aligned_si_sdr(moved, speech, 16000).item() == pytest.approx(si_sdr(first, second, 16000).item(), abs=1e-6)
    if delay:
        assert si_sdr(moved, speech, 16000).item() < aligned_si_sdr(moved, speech, 16000).item() - 3


def test_a_delay_of_more_than_a_tenth_of_a_second_counts(speech):
    assert aligned_si_sdr(torch.roll(speech, 4000, dims=2), speech, 16000).item() < 5


# Opinions: the figures are those of speechmos 0.0.1.1 itself, with librosa 0.11 and NumPy's seed 0, of this clip.


@has_opinions
def test_opinions_are_those_of_the_package(speech):
    clip = noisy(speech, 0.01)
    for figure, expected in OPINIONS.items():
        assert figure(clip, speech, 16000).item() == pytest.approx(expected, abs=2e-4)
    ratings = [dnsmos(clip, speech, 16000, rating=rating).item() for rating in ("signal", "background")]
    assert ratings == pytest.approx([3.41476, 2.373], abs=2e-4)


OPINIONS = {dnsmos: 2.23055, dnsmos_p808: 2.77706, plcmos: 2.05237}


@has_opinions
def test_noise_lowers_opinions_and_silence_has_none(speech):
    for figure in OPINIONS:
        assert figure(speech, speech, 16000).item() > figure(noisy(speech, 0.1), speech, 16000).item()
        assert math.isnan(figure(torch.zeros_like(speech), speech, 16000).item())


# Text


def page(*lines: str) -> torch.Tensor:
    """An image of printed lines: `[1, 3, 256, 256]`."""
    image = Image.new("RGB", (256, 256), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((10, 20 + 60 * number), line, font=ImageFont.load_default(26), fill="black")
    return to_image_tensor(image)[None]


@has_reader
def test_text_that_is_blurred_away_is_an_error():
    image = page("Does text survive?", "Page 42")
    soft, gone = (torch.nn.functional.avg_pool2d(image, size, 1, size // 2) for size in (3, 31))
    rates = [character_error_rate(blurred, image).item() for blurred in (image, soft, gone)]
    assert rates[0] == 0 and rates[1] <= 0.1 and rates[2] > 0.8


@has_reader
def test_other_text_is_counted_by_character_and_no_text_has_no_rate():
    assert character_error_rate(page("Page 43"), page("Page 42")).item() == pytest.approx(1 / 6)
    assert math.isnan(character_error_rate(page("Page 42"), page()).item())


@pytest.mark.parametrize(
    ("found", "wanted", "rate"),
    [("abc", "abc", 0), ("", "abc", 1), ("axc", "abc", 1 / 3), ("xabc", "abc", 1 / 3), ("kitten", "sitting", 3 / 7)],
)
def test_an_error_rate_is_the_edit_distance_over_the_length(found, wanted, rate):
    assert error_rate(found, wanted) == pytest.approx(rate)
    assert error_rate(tuple(found), tuple(wanted)) == pytest.approx(rate)


# Pitch without a compiler


@has_swift_f0
def test_swift_f0_hears_the_pitch_of_a_voice():
    time = np.arange(32000) / 16000
    low, high = (
        torch.from_numpy(sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 9)) * 0.2).float()[None, None]
        for pitch in (150, 165)
    )
    assert log_f0_rmse(high, low, 16000, extractor="swift-f0").item() == pytest.approx(math.log(1.1), abs=0.01)
    half = high.clone()
    half[..., 16000:] = 0
    assert voicing_error(half, low, 16000, extractor="swift-f0").item() == pytest.approx(0.5, abs=0.03)


# What is missing


@pytest.mark.parametrize(
    ("modality", "name", "package"),
    [
        ("audio", "dnsmos", "speechmos"),
        ("audio", "log_f0_rmse_swift", "swift-f0"),
        ("image", "character_error_rate", "rapidocr-onnxruntime"),
    ],
)
def test_a_package_that_is_not_installed_is_named(modality, name, package, monkeypatch):
    for module in ("opinion", "speech", "reading"):
        monkeypatch.setattr(f"zoo.metrics.{module}.find_spec", lambda name: None)
    assert f"needs the package {package}: pip install" in METRICS[modality][name].missing()


def save_to_cache(cache: Path, repository: str, network) -> None:
    """As the Hub's cache holds a repository."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    snapshot = folder / "snapshots" / "abc"
    network.save_pretrained(snapshot, safe_serialization=True)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save(state, snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()


def test_the_speaker_network_is_read_from_the_hubs_cache(speech, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsUnavailableError, match=r"pytorch_model\.bin of microsoft/wavlm-base-sv are not in"):
        wavlm_similarity(speech, speech, 16000)
    small = transformers.WavLMConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        tdnn_dim=(16, 16, 16, 16, 32),
        xvector_output_dim=16,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    torch.manual_seed(0)
    network = transformers.WavLMForXVector(small).eval()
    save_to_cache(tmp_path, "microsoft/wavlm-base-sv", network)
    worse = noisy(speech, 0.1)
    with torch.no_grad():
        first, second = (network(input_values=clip[0]).embeddings for clip in (worse, speech))
    expected = float((first * second).sum() / first.norm() / second.norm())
    assert wavlm_similarity(worse, speech, 16000).item() == pytest.approx(expected, abs=1e-4)
