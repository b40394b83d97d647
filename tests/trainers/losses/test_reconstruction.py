"""Reconstruction losses of pictures and sound against their formulas."""

import math

import numpy as np
import pytest
import torch

from zoo.errors import InputError
from zoo.trainers.losses.reconstruction import (
    bigcodec_mel_loss,
    convergence_loss,
    level_loss,
    mel_loss,
    multi_scale_mel_loss,
    psnr_loss,
    speechtokenizer_mel_loss,
    ssim_loss,
    stft_loss,
    stoi_loss,
)


def test_the_ssim_loss_is_the_published_formula():
    x, y = torch.rand(2, 1, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    values = []
    for channel in range(3):
        for top in range(10):
            for left in range(6):
                a = x[0, channel, top : top + 11, left : left + 11].double().numpy()
                b = y[0, channel, top : top + 11, left : left + 11].double().numpy()
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * covariance + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4))
                )
    assert float(ssim_loss(x, y)) == pytest.approx(1 - np.mean(values), abs=1e-5)


def test_the_psnr_loss_is_the_mean_over_items_in_decibels():
    x = torch.zeros(3, 3, 4, 4)
    y = torch.stack([torch.full_like(x[0], error) for error in (0.1, 0.01, 0.0)])
    assert float(psnr_loss(y, x)) == pytest.approx(-(20 + 40 + 60) / 3)


def plain_spectrum(audio, window: int, hop: int) -> np.ndarray:
    """Magnitudes `[frames, window / 2 + 1]` of samples `[n]`, reflected by half a window at both ends."""
    padded = np.pad(audio.double().numpy(), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(padded) - window + 1, hop)
    return np.stack([np.abs(np.fft.rfft(padded[start : start + window] * hann)) for start in starts])


def plain_triangles(points: np.ndarray, rate: int, window: int, equal_area: bool) -> np.ndarray:
    """Bands `[bins, bands]` between successive frequencies in Hz."""
    frequencies = np.linspace(0, rate / 2, window // 2 + 1)[:, None]
    rising = (frequencies - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - frequencies) / (points[2:] - points[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return triangles * 2 / (points[2:] - points[:-2]) if equal_area else triangles


def plain_mel(audio, window: int, bands: int, hop: int) -> np.ndarray:
    """Log mel magnitudes `[frames, bands]` of samples at 24 kHz: triangles evenly spaced on the HTK scale."""
    points = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12000 / 700), bands + 2) / 2595) - 1)
    triangles = plain_triangles(points, 24000, window, equal_area=False)
    return np.log(np.maximum(plain_spectrum(audio, window, hop) @ triangles, 1e-7))


def test_the_mel_loss_is_wavtokenizers_formula(noise):
    x, y = noise
    pairs = [(plain_mel(a[0], 1024, 100, 256), plain_mel(b[0], 1024, 100, 256)) for a, b in zip(x, y, strict=True)]
    expected = np.mean([np.abs(a - b).mean() for a, b in pairs])
    assert float(mel_loss(x, y, 24000)) == pytest.approx(expected, rel=1e-4)


def test_the_multi_scale_mel_loss_is_the_mean_over_scales(noise):
    x, y = noise
    expected = np.mean(
        [
            np.abs(plain_mel(a[0], window, bands, window // 4) - plain_mel(b[0], window, bands, window // 4)).mean()
            for a, b in zip(x, y, strict=True)
            for window, bands in ((256, 20), (512, 40), (1024, 80), (2048, 160))
        ]
    )
    assert float(multi_scale_mel_loss(x, y, 24000)) == pytest.approx(expected, rel=1e-4)


def test_speechtokenizers_mel_loss_is_its_formula(noise):
    total = 0.0
    for window, hop, weight in ((1024, 240, 45), (512, 120, 1), (256, 60, 1), (128, 30, 1)):
        points = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
        triangles = plain_triangles(points, 16000, window, equal_area=True)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)

        def spectrogram(audio, window=window, hop=hop, triangles=triangles, hann=hann) -> np.ndarray:
            padded = np.pad(audio.double().numpy(), (window - hop) // 2, mode="reflect")
            starts = range(0, len(padded) - window + 1, hop)
            spectra = [np.abs(np.fft.rfft(padded[start : start + window] * hann)) for start in starts]
            return np.log(np.maximum(np.stack(spectra) @ triangles, 1e-5))

        pairs = [(spectrogram(a[0]), spectrogram(b[0])) for a, b in zip(*noise, strict=True)]
        total += weight * np.mean([np.abs(a - b).mean() for a, b in pairs])
        assert len(pairs[0][0]) == 4800 // hop
    assert float(speechtokenizer_mel_loss(*noise, 16000)) == pytest.approx(total, rel=1e-4)


def slaney_mel(hertz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear up to 1 kHz, then 27 steps for each factor of 6.4."""
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def test_bigcodecs_mel_loss_is_its_formula(noise):
    total, fine = 0.0, np.linspace(0, 8000, 2_000_001)
    for window, bands in ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320)):
        points = np.interp(np.linspace(0, slaney_mel(np.array(8000.0)), bands + 2), slaney_mel(fine), fine)
        triangles = plain_triangles(points, 16000, window, equal_area=True)
        pairs = [
            [np.log10(np.maximum(plain_spectrum(x[0], window, window // 4) @ triangles, 1e-5)) for x in (a, b)]
            for a, b in zip(*noise, strict=True)
        ]
        total += np.mean([np.abs(a - b).mean() for a, b in pairs])
    assert float(bigcodec_mel_loss(*noise, 16000)) == pytest.approx(total, rel=1e-3)


def test_the_stft_loss_is_the_mean_of_log_magnitude_differences(noise):
    x, y = noise
    expected = np.mean(
        [
            np.abs(
                np.log(np.maximum(plain_spectrum(a[0], window, window // 4), 1e-5))
                - np.log(np.maximum(plain_spectrum(b[0], window, window // 4), 1e-5))
            ).mean()
            for a, b in zip(x, y, strict=True)
            for window in (512, 1024, 2048)
        ]
    )
    assert float(stft_loss(x, y)) == pytest.approx(expected, rel=1e-4)


def test_the_convergence_loss_is_the_relative_error_of_the_magnitudes(noise):
    x, y = noise
    expected = []
    for pair in zip(x, y, strict=True):
        ours, theirs = (plain_spectrum(audio[0], 768, 192) for audio in pair)
        expected.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    assert float(convergence_loss(x, y, window=768)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_level_loss_is_the_difference_of_the_levels_in_nepers(noise):
    x, _ = noise
    assert float(level_loss(x, x)) == 0
    factors = torch.tensor([0.5, 4.0])[:, None, None]
    assert float(level_loss(factors * x, x)) == pytest.approx((math.log(2) + math.log(4)) / 2, abs=1e-5)
    assert float(level_loss(torch.zeros_like(x), torch.zeros_like(x))) == 0


def test_the_stoi_loss_is_what_stoi_lacks_to_one():
    from zoo.metrics.audio import stoi

    generator = torch.Generator().manual_seed(0)
    level = 0.2 + torch.rand(1, 1, 40, generator=generator).repeat_interleave(1200, dim=-1)
    original = level * torch.randn(1, 1, 48000, generator=generator) * 0.1
    noisy = original + 0.05 * torch.randn(1, 1, 48000, generator=generator)
    assert float(stoi_loss(noisy, original, 24000)) == pytest.approx(1 - float(stoi(noisy, original, 24000)), abs=0.01)
    assert float(stoi_loss(original, original, 24000)) == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="at least half a second, got 9600 samples at 24000 Hz"):
        stoi_loss(noisy[..., :9600], original[..., :9600], 24000)


@pytest.mark.parametrize("loss", [convergence_loss, stft_loss, lambda x, y: mel_loss(x, y, 24000)])
def test_silence_has_a_finite_gradient(loss, noise):
    silence = torch.zeros_like(noise[0], requires_grad=True)
    loss(silence, noise[0]).backward()
    assert silence.grad.isfinite().all()
