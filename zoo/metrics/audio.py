"""Audio: distances of spectra and of samples, and the table of all metrics for audio."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.media import resample
from zoo.metrics.base import Metric
from zoo.metrics.opinion import dnsmos, dnsmos_p808, opinion_missing, plcmos
from zoo.metrics.reading import SPEAKER, WHISPER, wavlm_similarity, word_error_rate
from zoo.metrics.speech import (
    PitchExtractor,
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
LONGEST_DELAY = 0.1  # seconds
LOSS_WINDOWS = (2048, 512)
LOSS_BANDS = (150, 80)
LOSS_FLOOR = 1e-5


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


def spectral_loss(
    reconstruction: Tensor, original: Tensor, sample_rate: int, *, bands: tuple[int, ...] | None = None
) -> Tensor:
    """Distance of spectra as descript-audio-codec trains with, in the settings that audiotools gives it by default.

    Magnitudes come from Hann-windowed STFTs of 2048 and 512 samples, a quarter of it apart, centred, with reflected
    ends, at the sample rate given. At each resolution, the mean absolute difference of the magnitudes and that of the
    base-10 logarithms of their squares are added; magnitudes are clamped to at least 1e-5 before the logarithm.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1], longer than 1024 samples.
        sample_rate: Hz of both.
        bands: number of mel bands at each resolution, on Slaney's scale and with its norm, from 0 Hz to half the
            rate; None: the magnitudes themselves.

    Returns:
        `[B]`, at least 0, lower is better.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, too few samples, or one that is not
            finite.
    """
    check_pair(reconstruction, original, sample_rate)
    pair = torch.cat([reconstruction, original])[:, 0].float()
    if pair.shape[1] <= LOSS_WINDOWS[0] // 2:
        raise InputError(f"expected more than {LOSS_WINDOWS[0] // 2} samples, got {pair.shape[1]}")
    total = torch.zeros(len(original), device=pair.device)
    for index, size in enumerate(LOSS_WINDOWS):
        window = torch.hann_window(size, device=pair.device)
        magnitudes = torch.stft(pair, size, size // 4, window=window, return_complex=True).abs()
        if bands is not None:
            from torchaudio.functional import melscale_fbanks

            filters = melscale_fbanks(
                size // 2 + 1, 0.0, sample_rate / 2, bands[index], sample_rate, "slaney", "slaney"
            )
            magnitudes = filters.to(pair.device).mT @ magnitudes
        levels = magnitudes.clamp(min=LOSS_FLOOR).square().log10()
        for spectra in (magnitudes, levels):
            first, second = spectra.chunk(2)
            total += (first - second).abs().mean(dim=(1, 2))
    return total


def waveform_distance(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of the samples, `[B]`; arguments and errors as in `si_sdr`."""
    check_pair(reconstruction, original, sample_rate)
    return (reconstruction.float() - original.float()).abs().mean(dim=(1, 2))


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


def aligned_si_sdr(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """`si_sdr` after a constant delay of the reconstruction, which is not distortion, is taken out.

    The delay is the lag, of at most 0.1 seconds either way, at which the two correlate most; it is a whole number of
    samples. The samples at one end that then have no counterpart are left out.

    Args, Returns, Raises:
        As `si_sdr`.
    """
    check_pair(reconstruction, original, sample_rate)
    samples = original.shape[2]
    most = min(round(LONGEST_DELAY * sample_rate), samples - 1)
    figures = []
    for delayed, wanted in zip(reconstruction.double(), original.double(), strict=True):
        spectra = [torch.fft.rfft(signal[0] - signal.mean(), 2 * samples) for signal in (delayed, wanted)]
        correlation = torch.fft.irfft(spectra[0] * spectra[1].conj(), 2 * samples)
        lags = torch.arange(-most, most + 1, device=original.device)
        lag = int(lags[correlation[lags].argmax()])
        first = delayed[:, max(lag, 0) : samples + min(lag, 0)]
        second = wanted[:, max(-lag, 0) : samples + min(-lag, 0)]
        figures.append(si_sdr(first[None], second[None], sample_rate))
    return torch.cat(figures)


def _each_channel(
    figure: Callable[[Tensor, Tensor, int], Tensor], reconstruction: Tensor, original: Tensor, spec: TokenizerSpec
) -> Tensor:
    """Return the mean over channels, `[B]`, of a figure that takes mono audio."""
    assert spec.sample_rate is not None, "audio has a sample rate"
    first, second = (audio.flatten(0, 1)[:, None] for audio in (reconstruction, original))
    return figure(first, second, spec.sample_rate).unflatten(0, (-1, original.shape[1])).nanmean(dim=1)


def _metric(name: str, label: str, figure: Callable[..., Tensor], **options: Any) -> Metric:
    return Metric(name=name, label=label, per_item=partial(_each_channel, figure), **options)


def pitch_metric(name: str, label: str, figure: Callable[..., Tensor], extractor: PitchExtractor = "harvest") -> Metric:
    """Return a figure of pitch as a metric, with the package that computes F0."""
    missing = partial(pitch_missing, extractor)
    return _metric(name, label, partial(figure, extractor=extractor), higher_is_better=False, missing=missing)


def mel_metric(*, definition: Literal["vocos", "dac"] = "vocos") -> Metric:
    """Return the distance of mel spectrograms as a metric: `mel_distance`, or `spectral_loss` with 150 and 80 bands."""
    if definition == "vocos":
        return _metric("mel_distance", "Mel distance", mel_distance, higher_is_better=False)
    figure = partial(spectral_loss, bands=LOSS_BANDS)
    settings = {"definition": definition}
    return _metric("mel_distance", "Mel distance (DAC)", figure, higher_is_better=False, settings=settings)


def stft_metric(*, definition: Literal["parallel-wavegan", "dac"] = "parallel-wavegan") -> Metric:
    """Return the distance of spectrograms as a metric: `stft_distance`, or `spectral_loss`."""
    if definition == "parallel-wavegan":
        return _metric("stft_distance", "STFT distance", stft_distance, higher_is_better=False)
    settings = {"definition": definition}
    return _metric("stft_distance", "STFT distance (DAC)", spectral_loss, higher_is_better=False, settings=settings)


def waveform_metric() -> Metric:
    """Return `waveform_distance` as a metric."""
    return _metric("waveform_distance", "Waveform distance", waveform_distance, digits=4, higher_is_better=False)


AUDIO = {
    metric.name: metric
    for metric in (
        mel_metric(),
        stft_metric(),
        _metric("si_sdr", "SI-SDR", si_sdr, unit="dB", digits=2, higher_is_better=True),
        _metric("aligned_si_sdr", "Aligned SI-SDR", aligned_si_sdr, unit="dB", digits=2, higher_is_better=True),
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
        pitch_metric("log_f0_rmse", "Log-F0 RMSE", log_f0_rmse),
        pitch_metric("voicing_error", "Voicing error", voicing_error),
        pitch_metric("log_f0_rmse_swift", "Log-F0 RMSE (SwiftF0)", log_f0_rmse, "swift-f0"),
        pitch_metric("voicing_error_swift", "Voicing error (SwiftF0)", voicing_error, "swift-f0"),
        _metric(
            "speaker_similarity",
            "Speaker similarity",
            speaker_similarity,
            higher_is_better=True,
            missing=voice_missing,
        ),
        _metric(
            "wavlm_similarity",
            "Speaker similarity (WavLM)",
            wavlm_similarity,
            higher_is_better=True,
            missing=SPEAKER.missing,
        ),
        _metric("dwer", "dWER", word_error_rate, higher_is_better=False, missing=WHISPER.missing),
        _metric("dnsmos", "DNSMOS", dnsmos, digits=2, higher_is_better=True, missing=opinion_missing),
        _metric("dnsmos_p808", "DNSMOS P.808", dnsmos_p808, digits=2, higher_is_better=True, missing=opinion_missing),
        _metric("plcmos", "PLCMOS", plcmos, digits=2, higher_is_better=True, missing=opinion_missing),
    )
}
AUDIO_SETTINGS: dict[str, Callable[..., Metric]] = {
    "mel_distance": mel_metric,
    "stft_distance": stft_metric,
    "waveform_distance": waveform_metric,
}
