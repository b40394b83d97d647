"""Reconstruction losses of images and audio: plain functions of reconstruction and original."""

from __future__ import annotations

import warnings
from functools import cache, reduce
from operator import add
from typing import Any

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError

# Window lengths in samples; a mel scale has one band for every 12.8 samples of its window.
STFT_WINDOWS = (512, 1024, 2048)
MEL_SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 160))
# Window, hop and weight of SpeechTokenizer's spectrograms; window and bands of BigCodec's.
SPEECHTOKENIZER_MEL_SCALES = ((1024, 240, 45.0), (512, 120, 1.0), (256, 60, 1.0), (128, 30, 1.0))
BIGCODEC_MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


def psnr_loss(reconstruction: Tensor, original: Tensor) -> Tensor:
    """PSNR in dB with its sign turned, the mean over items `[B, C, ...]` in [0, 1]; errors of a flat item end at 60 dB.

    Squared error makes most of the images that are hard; here each counts for its ratio, as in the metric.
    """
    errors = (reconstruction - original).square().flatten(1).mean(dim=1)
    return 10 * errors.clamp(min=1e-6).log10().mean()


def ssim_loss(reconstruction: Tensor, original: Tensor) -> Tensor:
    """1 - mean structural similarity of float images `[B, C, H, W]` in [0, 1], at least 11 pixels a side.

    Wang 2004: Gaussian window of 11 pixels and standard deviation 1.5, constants 0.01² and 0.03², per channel,
    over the windows that lie wholly inside the image. InputError for smaller images.
    """
    if min(original.shape[-2:]) < 11:
        raise InputError(f"expected images of at least 11 pixels a side for SSIM, got {list(original.shape)}")
    x, y = reconstruction, original
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = gaussian_means(torch.stack([x, y, x * x, y * y, x * y]))
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    structure = (2 * (mean_xy - mean_x * mean_y) + 0.03**2) / (variances + 0.03**2)
    return 1 - (luminance * structure).mean()


def gaussian_means(images: Tensor) -> Tensor:
    """Gaussian-weighted means of windows of 11 by 11: `[..., H, W]` to `[..., H - 10, W - 10]`.

    They are computed as products with band matrices, in half the time of two depthwise convolutions on a CPU.
    """
    window = torch.exp(-((torch.arange(11, device=images.device) - 5.0) ** 2) / (2 * 1.5**2))
    window = window / window.sum()

    def band(length: int) -> Tensor:
        eye = torch.eye(length, device=images.device)
        return reduce(add, (weight * eye[:, shift : shift + length - 10] for shift, weight in enumerate(window)))

    return band(images.shape[-2]).T @ (images @ band(images.shape[-1]))


def mel_loss(
    reconstruction: Tensor, original: Tensor, sample_rate: int, *, window: int = 1024, hop: int = 256, bands: int = 100
) -> Tensor:
    """Mean absolute difference of log mel spectrograms of float audio `[..., samples]` at `sample_rate` Hz.

    As in WavTokenizer: HTK bands up to half the sample rate, not normalised; Hann window and reflected ends;
    magnitudes; natural log, of at least 1e-7.
    """
    spectrogram = mel_spectrogram(sample_rate, window, hop, bands, original.device)
    ours, theirs = (spectrogram(audio).clamp(min=1e-7).log() for audio in (reconstruction, original))
    return functional.l1_loss(ours, theirs)


def multi_scale_mel_loss(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Mean of `mel_loss` over the windows and bands of `MEL_SCALES`, with hops of a quarter window."""
    terms = [
        mel_loss(reconstruction, original, sample_rate, window=window, hop=window // 4, bands=bands)
        for window, bands in MEL_SCALES
    ]
    return torch.stack(terms).mean()


def speechtokenizer_mel_loss(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """SpeechTokenizer's and DM-Codec's sum of mean absolute differences of log mel spectrograms, `[..., samples]`.

    80 HTK bands of equal area up to half the sample rate, over `SPEECHTOKENIZER_MEL_SCALES`, each with its weight;
    reflected ends, so that there is one frame for each hop; magnitudes; natural log of at least 1e-5.
    """
    terms = []
    for window, hop, weight in SPEECHTOKENIZER_MEL_SCALES:
        options = {"norm": "slaney", "center": False}
        spectrogram = mel_spectrogram(sample_rate, window, hop, 80, original.device, **options)
        ours, theirs = (
            spectrogram(functional.pad(audio, ((window - hop) // 2,) * 2, mode="reflect")).clamp(min=1e-5).log()
            for audio in (reconstruction, original)
        )
        terms.append(weight * functional.l1_loss(ours, theirs))
    return reduce(add, terms)


def bigcodec_mel_loss(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """BigCodec's sum of mean absolute differences of log mel spectrograms, of float audio `[..., samples]`.

    Slaney's bands of equal area up to half the sample rate, over `BIGCODEC_MEL_SCALES`, with hops of a quarter window;
    reflected ends; magnitudes; decimal log of at least 1e-5.
    """
    terms = []
    for window, bands in BIGCODEC_MEL_SCALES:
        options = {"norm": "slaney", "mel_scale": "slaney"}
        spectrogram = mel_spectrogram(sample_rate, window, window // 4, bands, original.device, **options)
        ours, theirs = (spectrogram(audio).clamp(min=1e-5).log10() for audio in (reconstruction, original))
        terms.append(functional.l1_loss(ours, theirs))
    return reduce(add, terms)


@cache
def mel_spectrogram(
    sample_rate: int, window: int, hop: int, bands: int, device: torch.device, **options: Any
) -> torchaudio.transforms.MelSpectrogram:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filterbank has all zero values")  # as the authors' have
        transform = torchaudio.transforms.MelSpectrogram(
            sample_rate, n_fft=window, hop_length=hop, n_mels=bands, power=1.0, **options
        )
    return transform.to(device)


def stft_loss(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference of log magnitude spectra of float audio `[B, C, samples]`, over `STFT_WINDOWS`.

    Hann windows, hops of a quarter window, reflected ends; natural log of at least 1e-5. All windows count the same.
    """
    spectra = [[log_magnitude(audio, window) for audio in (reconstruction, original)] for window in STFT_WINDOWS]
    return torch.stack([functional.l1_loss(ours, theirs) for ours, theirs in spectra]).mean()


def convergence_loss(reconstruction: Tensor, original: Tensor, *, window: int = 768) -> Tensor:
    """Spectral convergence of float audio `[B, C, samples]` (Arik 2019, arXiv 1808.06719).

    It is the norm of the difference of the magnitude spectra over the norm of the original's (at least 0.1). The
    logarithmic losses give every level the same weight; this one gives most weight to what is loud.
    """
    ours, theirs = (square_magnitude(audio, window).sqrt() for audio in (reconstruction, original))
    return ((ours - theirs).norm(dim=(1, 2)) / theirs.norm(dim=(1, 2)).clamp(min=0.1)).mean()


def level_loss(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference of the levels of float audio `[B, C, samples]`: natural logs of the RMS, at least 1e-4.

    Losses of magnitudes alone are least where what a network cannot foretell is too quiet; this one holds the sum.
    """
    ours, theirs = (audio.square().mean(dim=-1).clamp(min=1e-8).log() / 2 for audio in (reconstruction, original))
    return functional.l1_loss(ours, theirs)


def stoi_loss(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """1 - STOI (Taal 2011) of float audio `[B, C, samples]`, at least half a second long, at `sample_rate` Hz.

    Correlation of band envelopes over segments of 384 ms, with the reconstruction's scaled to the original's level and
    clipped 15 dB above it. Unlike in the metric, silent frames count. InputError for shorter audio.
    """
    if original.shape[-1] < sample_rate / 2:
        raise InputError(f"STOI takes at least half a second, got {original.shape[-1]} samples at {sample_rate} Hz")
    ours, theirs = (
        band_envelopes(audio, sample_rate).unfold(2, 30, 1) for audio in (reconstruction, original)
    )  # [B * C, bands, segments, frames of a segment]
    ours = ours * (theirs.norm(dim=-1, keepdim=True) / ours.norm(dim=-1, keepdim=True))
    ours = torch.minimum(ours, theirs * (1 + 10 ** (15 / 20)))
    ours, theirs = (envelope - envelope.mean(dim=-1, keepdim=True) for envelope in (ours, theirs))
    return 1 - functional.cosine_similarity(ours, theirs, dim=-1).mean()


def band_envelopes(audio: Tensor, sample_rate: int) -> Tensor:
    """STOI's envelopes of 15 third-octave bands from 150 Hz: `[B * C, 15, frames]`, frames of 128 samples at 10 kHz."""
    audio = torchaudio.functional.resample(audio.flatten(0, 1), sample_rate, 10_000)
    hann = torch.hann_window(256, device=audio.device)
    power = torch.stft(audio, 512, 128, 256, window=hann, return_complex=True).abs().square()
    frequencies = torch.linspace(0, 5_000, power.shape[1], device=audio.device)
    centres = 150 * 2 ** (torch.arange(15, device=audio.device)[:, None] / 3)
    bands = (frequencies >= centres * 2 ** (-1 / 6)) & (frequencies < centres * 2 ** (1 / 6))
    return (bands.float() @ power).clamp(min=1e-8).sqrt()


def log_magnitude(audio: Tensor, window: int) -> Tensor:
    """Natural log of the magnitude spectrum of float `[B, C, samples]`: `[B * C, window / 2 + 1, frames]`."""
    return square_magnitude(audio, window).log() / 2


def square_magnitude(audio: Tensor, window: int) -> Tensor:
    """Squared magnitude spectrum in the shape of `log_magnitude`, at least 1e-10: root and log have no slope at 0."""
    hann = torch.hann_window(window, device=audio.device)
    spectrum = torch.stft(audio.flatten(0, 1), window, window // 4, window=hann, return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2).clamp(min=1e-10)
