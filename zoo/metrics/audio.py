"""Audio: distances of spectra and of samples, and the table of all metrics for audio."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.media import resample
from zoo.metrics.base import Metric
from zoo.metrics.speech import (
    check_pair,
    log_f0_rmse,
    pesq,
    pesq_missing,
    pitch_missing,
    speaker_similarity,
    stoi,
    voice_missing,
    voicing_error,
)
from zoo.spec import TokenizerSpec

MEL_RATE = 24000
MEL_WINDOW = 1024
STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # FFT, hop and window in samples
STFT_FLOOR = 1e-4


def mel_distance(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of log-mel spectrograms: the mel loss of Vocos and WavTokenizer (arXiv 2408.16532).

    Both are resampled to 24 kHz. Magnitudes come from a Hann-windowed STFT of 1024 samples every 256, centred, with
    reflected ends; 100 bands from 0 to 12 kHz on the HTK scale, filters not normalised; natural logarithm of
    magnitudes clamped to at least 1e-7.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1].
        sample_rate: Hz of both.

    Returns:
        `[B]`, at least 0, lower is better; NaN for clips of at most 512 samples at 24 kHz.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
    """
    check_pair(reconstruction, original, sample_rate)
    pair = resample(torch.cat([reconstruction, original]).float(), sample_rate, MEL_RATE)
    if pair.shape[2] <= MEL_WINDOW // 2:  # too few to reflect
        return torch.full((len(original),), torch.nan, device=original.device)
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(MEL_RATE, n_fft=MEL_WINDOW, hop_length=256, n_mels=100, power=1)
    first, second = mel.to(pair.device)(pair).clamp(min=1e-7).log().chunk(2)
    return (first - second).abs().mean(dim=(1, 2, 3))


def stft_distance(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Multi-resolution STFT distance: the loss of Parallel WaveGAN (arXiv 1910.11480), with the floor of auraloss.

    Both are resampled to 24 kHz. The distance is the mean over three resolutions (FFT 1024, 2048, 512; Hann window
    600, 1200, 240; hop 120, 240, 50 samples; centred, with reflected ends) of two terms: spectral convergence, which is
    the Frobenius norm of the difference of the magnitudes over that of the original's magnitudes, and the mean absolute
    difference of their natural logarithms. Magnitudes are clamped to at least 1e-4.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1], longer than 1024 samples at 24 kHz.
        sample_rate: Hz of both.

    Returns:
        `[B]`, at least 0, lower is better. NaN where the original is silent.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, too few samples, or one that is not
            finite.
    """
    check_pair(reconstruction, original, sample_rate)
    pair = resample(torch.cat([reconstruction, original])[:, 0].float(), sample_rate, MEL_RATE)
    least = max(size for size, _, _ in STFT_RESOLUTIONS) // 2
    if pair.shape[1] <= least:
        raise InputError(f"expected more than {least} samples at {MEL_RATE} Hz, got {pair.shape[1]}")
    distance = torch.zeros(len(original), device=pair.device)
    for size, hop, length in STFT_RESOLUTIONS:
        window = torch.hann_window(length, device=pair.device)
        spectra = torch.stft(pair, size, hop, length, window, return_complex=True)
        first, second = torch.view_as_real(spectra).square().sum(dim=3).clamp(min=STFT_FLOOR**2).sqrt().chunk(2)
        convergence = (first - second).norm(dim=(1, 2)) / second.norm(dim=(1, 2))
        distance += convergence + (first.log() - second.log()).abs().mean(dim=(1, 2))
    silent = (original == 0).all(dim=2)[:, 0]
    return (distance / len(STFT_RESOLUTIONS)).masked_fill(silent, math.nan)


def si_sdr(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), by torchmetrics; means are subtracted.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]. They are compared sample by sample, at
            their own rate, so a reconstruction that differs in phase alone has a low figure.
        sample_rate: Hz of both.

    Returns:
        float64 `[B]` in dB, higher is better; above 100 where the two are equal up to scale. NaN where one of them
        is constant.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
    """
    check_pair(reconstruction, original, sample_rate)
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    first, second = reconstruction[:, 0].double(), original[:, 0].double()
    constant = (first == first[:, :1]).all(dim=1) | (second == second[:, :1]).all(dim=1)
    return scale_invariant_signal_distortion_ratio(first, second, zero_mean=True).masked_fill(constant, math.nan)


def _each_channel(
    figure: Callable[[Tensor, Tensor, int], Tensor], reconstruction: Tensor, original: Tensor, spec: TokenizerSpec
) -> Tensor:
    """Return the mean over channels, `[B]`, of a figure that takes mono audio."""
    assert spec.sample_rate is not None, "audio has a sample rate"
    first, second = (audio.flatten(0, 1)[:, None] for audio in (reconstruction, original))
    return figure(first, second, spec.sample_rate).unflatten(0, (-1, original.shape[1])).nanmean(dim=1)


def _metric(name: str, label: str, figure: Callable[..., Tensor], **options: Any) -> Metric:
    return Metric(name=name, label=label, per_item=partial(_each_channel, figure), **options)


AUDIO = {
    metric.name: metric
    for metric in (
        _metric("mel_distance", "Mel distance", mel_distance, higher_is_better=False),
        _metric("stft_distance", "STFT distance", stft_distance, higher_is_better=False),
        _metric("si_sdr", "SI-SDR", si_sdr, unit="dB", digits=2, higher_is_better=True),
        _metric("stoi", "STOI", stoi, higher_is_better=True),
        _metric("pesq_wb", "PESQ wide band", pesq, digits=2, higher_is_better=True, missing=pesq_missing),
        _metric(
            "pesq_nb",
            "PESQ narrow band",
            partial(pesq, band="nb"),
            digits=2,
            higher_is_better=True,
            missing=pesq_missing,
        ),
        _metric("log_f0_rmse", "Log-F0 RMSE", log_f0_rmse, higher_is_better=False, missing=pitch_missing),
        _metric("voicing_error", "Voicing error", voicing_error, higher_is_better=False, missing=pitch_missing),
        _metric(
            "speaker_similarity",
            "Speaker similarity",
            speaker_similarity,
            higher_is_better=True,
            missing=voice_missing,
        ),
    )
}
