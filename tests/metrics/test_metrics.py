"""Each metric against its own computation, and signals for which it is not defined."""

import math
import subprocess
import sys

import numpy as np
import pesq as pesq_package
import pytest
import scipy.ndimage
import scipy.signal
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image

from zoo.errors import InputError
from zoo.media import load_image, resample
from zoo.metrics import mel_distance, pesq, psnr, ssim, stoi


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph with two kinds of damage, and the photograph: `[2, 3, 79, 64]`."""
    with get_sample_data("grace_hopper.jpg") as file:
        image = load_image(Image.open(file).convert("RGB").resize((64, 79)))
    noise = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2)
    return torch.stack([(image + noise).clamp(0, 1), blurred]), torch.stack([image, image])


def voice(sample_rate: int) -> np.ndarray:
    """Two seconds of vowels with moving pitch and formants, and pauses: float64 `[samples]`."""
    time = np.arange(2 * sample_rate) / sample_rate
    phase = 2 * np.pi * np.cumsum(140 - 20 * np.sin(2 * np.pi * 0.7 * time)) / sample_rate
    formants = [500 + 200 * np.sin(3 * time), 1500 + 400 * np.sin(2 * time + 1)]
    sound = np.zeros_like(time)
    for harmonic in range(1, 15):
        colour = sum(np.exp(-(((140 * harmonic - formant) / 200) ** 2)) for formant in formants)
        sound += colour * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None) ** 0.5
    return 0.5 * sound * syllables / np.abs(sound).max()


def pair(sample_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A voice in noise, weak and strong, and the voice: float32 `[2, 1, samples]`."""
    clean = voice(sample_rate)
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    degraded = np.stack([clean + 0.002 * noise, clean + 0.02 * noise])
    return torch.from_numpy(degraded).float()[:, None], torch.from_numpy(clean).float().expand(2, 1, -1)


# Images


def test_psnr_is_the_mean_squared_error_in_decibels(images):
    reconstruction, original = images
    error = (reconstruction.double() - original.double()).square().mean(dim=(1, 2, 3))
    assert psnr(reconstruction, original).tolist() == pytest.approx((-10 * error.log10()).tolist(), rel=1e-5)


def test_psnr_of_equal_images_is_infinite(images):
    assert psnr(images[1], images[1]).tolist() == [math.inf, math.inf]


def direct_ssim(first: np.ndarray, second: np.ndarray) -> float:
    def smooth(channel: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(channel, 1.5, radius=5, mode="mirror")

    maps = []
    for x, y in zip(first, second, strict=True):
        mean_x, mean_y = smooth(x), smooth(y)
        variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
        covariance = smooth(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
        maps.append(luminance * structure)
    return float(np.mean(maps))


def test_ssim_is_that_of_its_formula(images):
    expected = [direct_ssim(*item) for item in zip(*(batch.double().numpy() for batch in images), strict=True)]
    assert 0.3 < min(expected) < max(expected) < 0.98
    assert ssim(*images).tolist() == pytest.approx(expected, abs=1e-5)


def test_equal_images_have_a_similarity_of_one(images):
    assert ssim(images[1], images[1]).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_an_image_has_the_same_figure_alone_and_in_a_batch(images, metric):
    reconstruction, original = images
    together = metric(reconstruction, original)
    assert together.shape == (2,)
    alone = torch.cat([metric(reconstruction[i : i + 1], original[i : i + 1]) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_half_precision_images_are_compared_in_full(images, metric):
    half = [batch.bfloat16() for batch in images]
    assert torch.equal(metric(*half), metric(*(batch.float() for batch in half)))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_that_do_not_pair_are_refused(images, metric):
    reconstruction, original = images
    for bad, message in [
        (reconstruction[0], r"expected reconstruction as \[batch, 3, height, width\], got \[3, 79, 64\]"),
        (reconstruction[:, :1], r"got \[2, 1, 79, 64\]"),
        (reconstruction[:1], r"original's shape \[2, 3, 79, 64\], got \[1, 3, 79, 64\]"),
        ((reconstruction * 255).to(torch.uint8), "got torch.uint8"),
        (reconstruction.numpy(), "got ndarray"),
    ]:
        with pytest.raises(InputError, match=message):
            metric(bad, original)


def test_images_smaller_than_the_window_have_no_ssim():
    assert ssim(torch.zeros(2, 3, 10, 20), torch.zeros(2, 3, 10, 20)).isnan().tolist() == [True, True]


# Mel distance


def direct_log_mel(signal: np.ndarray) -> np.ndarray:
    """Bands by frames, at 24 kHz."""
    padded = np.pad(signal, 512, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
    magnitudes = np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", 1024)))
    bins = np.arange(513) * 24000 / 1024
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12000 / 700), 102) / 2595) - 1)
    bands = [np.interp(bins, edges[k : k + 3], [0, 1, 0], left=0, right=0) @ magnitudes.T for k in range(100)]
    return np.log(np.maximum(bands, 1e-7))


def test_mel_distance_is_that_of_its_definition():
    noisy, _ = pair(24000)  # silence, in which float32 rounds, is no part of the definition
    weak, strong = (direct_log_mel(audio.double().numpy()[0]) for audio in noisy)
    expected = np.abs(strong - weak).mean()
    assert expected > 0.5
    assert mel_distance(noisy[1:], noisy[:1], 24000).tolist() == pytest.approx([expected], rel=1e-4)


def test_mel_distance_of_equal_signals_is_zero():
    _, original = pair(24000)
    assert mel_distance(original, original, 24000).tolist() == [0, 0]
    silence = torch.zeros_like(original)
    assert mel_distance(silence, silence, 24000).tolist() == [0, 0]


def test_other_rates_are_compared_at_24_khz():
    reconstruction, original = pair(16000)
    resampled = [resample(audio, 16000, 24000) for audio in (reconstruction, original)]
    assert torch.equal(mel_distance(reconstruction, original, 16000), mel_distance(*resampled, 24000))


def test_a_signal_shorter_than_the_padding_has_no_mel_distance():
    assert mel_distance(torch.zeros(1, 1, 512), torch.zeros(1, 1, 512), 24000).isnan().tolist() == [True]


# Intelligibility


def direct_stoi(clean: np.ndarray, degraded: np.ndarray) -> float:
    """Taal et al. 2011, section II, for signals at 10 kHz."""
    window = np.hanning(258)[1:-1]

    def frames(signal: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(signal, 256)[:-1:128] * window

    energies = 20 * np.log10(np.linalg.norm(frames(clean), axis=1) + 1e-12)
    loud = energies > energies.max() - 40

    def bands(signal: np.ndarray) -> np.ndarray:
        kept = frames(signal)[loud]
        joined = np.zeros(128 * (len(kept) + 1))
        for i, frame in enumerate(kept):
            joined[128 * i : 128 * i + 256] += frame
        power = np.abs(np.fft.rfft(frames(joined), 512)) ** 2
        bins = np.arange(257) * 10000 / 512
        nearest = [[np.abs(bins - 150 * 2 ** ((2 * k + side) / 6)).argmin() for side in (-1, 1)] for k in range(15)]
        return np.sqrt([power[:, low:high].sum(axis=1) for low, high in nearest])

    x, y = bands(clean), bands(degraded)
    correlations = []
    for end in range(30, x.shape[1] + 1):
        part, other = x[:, end - 30 : end], y[:, end - 30 : end]
        other = other * np.linalg.norm(part, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
        other = np.minimum(other, part * (1 + 10 ** (15 / 20)))
        correlations += [np.corrcoef(a, b)[0, 1] for a, b in zip(part, other, strict=True)]
    return float(np.mean(correlations))


def test_stoi_is_that_of_its_definition():
    reconstruction, original = pair(10000)
    expected = [
        direct_stoi(y.double().numpy()[0], x.double().numpy()[0]) for x, y in zip(reconstruction, original, strict=True)
    ]
    assert expected[0] > expected[1] + 0.05
    assert stoi(reconstruction, original, 10000).tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000])
def test_speech_that_is_unchanged_is_wholly_intelligible(sample_rate):
    _, original = pair(sample_rate)
    assert stoi(original, original, sample_rate).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_too_little_sound_has_no_stoi():
    _, original = pair(16000)
    short = original[:, :, :6000]
    assert stoi(short, short, 16000).isnan().all()
    mostly_silent = torch.cat([short, torch.zeros(2, 1, 32000)], dim=2)
    assert stoi(mostly_silent, mostly_silent, 16000).isnan().all()
    silent = torch.zeros_like(original)
    assert stoi(original, silent, 16000).isnan().all()
    assert stoi(silent, original, 16000).tolist() == [0, 0]


# Perceptual quality


@pytest.mark.parametrize("band", ["wb", "nb"])
def test_pesq_is_the_packages_own(band):
    reconstruction, original = pair(16000)
    expected = [
        pesq_package.pesq(16000, y.numpy()[0], x.numpy()[0], band)
        for x, y in zip(reconstruction, original, strict=True)
    ]
    assert expected[0] > expected[1] + 0.3
    assert pesq(reconstruction, original, 16000, band).tolist() == pytest.approx(expected)


def test_pesq_compares_at_16_khz():
    reconstruction, original = pair(24000)
    resampled = [resample(audio, 24000, 16000) for audio in (reconstruction, original)]
    assert torch.equal(pesq(reconstruction, original, 24000), pesq(*resampled, 16000))


def test_an_item_that_pesq_cannot_score_is_nan_and_the_others_keep_their_scores():
    reconstruction, original = pair(16000)
    silent = torch.zeros_like(original[:1])
    scores = pesq(torch.cat([reconstruction, original[:1]]), torch.cat([original, silent]), 16000)
    assert scores.isnan().tolist() == [False, False, True]
    assert pesq(silent, original[:1], 16000).isnan().all()
    assert pesq(original[:, :, :3999], original[:, :, :3999], 16000).isnan().all()


def test_a_long_clip_has_the_score_of_the_package():
    reconstruction, original = (audio[:1].repeat(1, 1, 11) for audio in pair(16000))  # 22 seconds
    expected = pesq_package.pesq(16000, original.numpy()[0, 0], reconstruction.numpy()[0, 0], "wb")
    assert pesq(reconstruction, original, 16000).tolist() == pytest.approx([expected])


def test_a_clip_of_more_utterances_than_pesq_can_take_is_nan():
    burst = torch.cat([0.2 * torch.randn(4000, generator=torch.Generator().manual_seed(0)), torch.zeros(4000)])
    clip = burst.repeat(70)[None, None]  # 70 utterances in 35 seconds
    assert pesq(clip, clip, 16000).isnan().all()


def test_without_the_package_pesq_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ImportError, match=r'pip install "tokenizer-zoo\[metrics\]"'):
        pesq(*pair(16000), 16000)


# What all metrics of sound check


@pytest.mark.parametrize("metric", [mel_distance, stoi, pesq])
def test_an_item_has_the_same_figure_alone_and_in_a_batch(metric):
    reconstruction, original = pair(16000)
    together = metric(reconstruction, original, 16000)
    assert together.shape == (2,)
    alone = torch.cat([metric(reconstruction[i : i + 1], original[i : i + 1], 16000) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("metric", [mel_distance, stoi, pesq])
def test_sounds_that_do_not_pair_are_refused(metric):
    reconstruction, original = pair(16000)
    for bad, message in [
        (reconstruction[:, 0], r"expected reconstruction as \[batch, 1, samples\], got \[2, 32000\]"),
        (reconstruction.repeat(1, 2, 1), r"got \[2, 2, 32000\]"),
        (reconstruction[..., :-1], r"original's shape \[2, 1, 32000\], got \[2, 1, 31999\]"),
        (reconstruction.short(), "got torch.int16"),
        (reconstruction / 0, "samples that are not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            metric(bad, original, 16000)
    with pytest.raises(InputError, match="positive integer in Hz, got 0"):
        metric(reconstruction, original, 0)


def test_an_unknown_band_is_refused():
    with pytest.raises(InputError, match="expected band 'wb' or 'nb', got 'swb'"):
        pesq(*pair(16000), 16000, band="swb")


def test_importing_the_metrics_imports_none_of_their_packages():
    program = (
        "import sys, zoo.metrics; "
        "print([name for name in ('torchmetrics', 'pystoi', 'pesq', 'torchaudio') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"
