"""Sound: mel distance, intelligibility and perceptual quality."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.media import resample

MEL_RATE = 24000
MEL_WINDOW = 1024
PESQ_RATE = 16000

# The implementation of PESQ writes behind its arrays, and mostly crashes, from the 51st utterance on. Utterances last
# at least 0.2 seconds with as much between them, so that longer clips than this are left to a process of their own.
PESQ_SAFE_SECONDS = 20
PESQ_PROGRAM = """
import sys, numpy, pesq
clean, degraded = numpy.frombuffer(sys.stdin.buffer.read(), numpy.float32).reshape(2, -1)
print(pesq.pesq(16000, clean, degraded, sys.argv[1], on_error=pesq.PesqError.RETURN_VALUES))
"""


def mel_distance(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of log-mel spectrograms: the mel loss of Vocos and WavTokenizer (arXiv 2408.16532).

    At 24 kHz, to which both are resampled: magnitudes of a Hann-windowed STFT of 1024 samples every 256, centred
    with reflected ends; 100 bands from 0 to 12 kHz on the HTK scale, filters not normalised; natural logarithm of
    what is at least 1e-7.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1], longer than 512 samples at 24 kHz.
        sample_rate: Hz of both.

    Returns:
        `[B]`, at least 0, lower is better.

    Raises:
        InputError: another type, shape, dtype or rate, two that differ in shape, too few samples, or one that is not
            finite.
    """
    _check_pair(reconstruction, original, sample_rate)
    pair = resample(torch.cat([reconstruction, original]).float(), sample_rate, MEL_RATE)
    if pair.shape[2] <= MEL_WINDOW // 2:
        raise InputError(f"expected more than {MEL_WINDOW // 2} samples at {MEL_RATE} Hz, got {pair.shape[2]}")
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(MEL_RATE, n_fft=MEL_WINDOW, hop_length=256, n_mels=100, power=1)
    first, second = mel.to(pair.device)(pair).clamp(min=1e-7).log().chunk(2)
    return (first - second).abs().mean(dim=(1, 2, 3))


def stoi(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Short-time objective intelligibility of speech (Taal et al. 2011), by pystoi, which resamples to 10 kHz.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1].
        sample_rate: Hz of both.

    Returns:
        float64 `[B]`, about 0 to 1, higher is better. NaN where STOI is not defined: less than 0.4 seconds of the
        original are within 40 dB of its loudest frame, or it is silent.

    Raises:
        InputError: another type, shape, dtype or rate, two that differ in shape, or a sample that is not finite.
    """
    _check_pair(reconstruction, original, sample_rate)
    from torchmetrics.functional.audio import short_time_objective_intelligibility

    def score(degraded: Tensor, clean: Tensor) -> float:
        if clean.shape[0] < 0.4 * sample_rate or not clean.any():
            return math.nan
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return float(short_time_objective_intelligibility(degraded, clean, sample_rate))
            except RuntimeWarning:
                return math.nan

    pairs = zip(reconstruction[:, 0].double(), original[:, 0].double(), strict=True)
    return torch.tensor([score(*pair) for pair in pairs], dtype=torch.float64, device=original.device)


def pesq(reconstruction: Tensor, original: Tensor, sample_rate: int, band: Literal["wb", "nb"] = "wb") -> Tensor:
    """Perceptual evaluation of speech quality (ITU-T P.862.2 wide band, P.862.1 narrow band), at 16 kHz.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        sample_rate: Hz of both.
        band: `wb` wide or `nb` narrow.

    Returns:
        float64 `[B]`, about 1 to 4.6, higher is better. NaN where PESQ is not defined: a clip shorter than 0.25
        seconds, an original without an utterance, a silent reconstruction, or more utterances than the
        implementation's 50.

    Raises:
        InputError: another type, shape, dtype, rate or band, two that differ in shape, or a sample that is not
            finite.
        ImportError: the package `pesq` is not installed.
    """
    _check_pair(reconstruction, original, sample_rate)
    if band not in ("wb", "nb"):
        raise InputError(f"expected band 'wb' or 'nb', got {band!r}")
    if find_spec("pesq") is None:
        raise ImportError('pesq() needs the package pesq: pip install "tokenizer-zoo[metrics]"')
    pair = torch.cat([reconstruction, original])[:, 0].detach().float()
    degraded, clean = resample(pair, sample_rate, PESQ_RATE).cpu().numpy().reshape(2, len(original), -1)
    scores = [_pesq_score(*clips, band) for clips in zip(clean, degraded, strict=True)]
    return torch.tensor(scores, dtype=torch.float64, device=original.device)


def _pesq_score(clean: np.ndarray, degraded: np.ndarray, band: str) -> float:
    """PESQ of float32 `[samples]` at 16 kHz, or NaN."""
    import pesq

    if len(clean) < PESQ_RATE / 4 or not degraded.any():
        return math.nan
    if len(clean) <= PESQ_SAFE_SECONDS * PESQ_RATE:
        score = pesq.pesq(PESQ_RATE, clean, degraded, band, on_error=pesq.PesqError.RETURN_VALUES)
    else:
        command = [sys.executable, "-c", PESQ_PROGRAM, band]
        process = subprocess.run(command, input=clean.tobytes() + degraded.tobytes(), capture_output=True)
        if process.returncode > 0:
            raise RuntimeError(f"PESQ failed: {process.stderr.decode(errors='replace')}")
        score = float(process.stdout) if process.returncode == 0 else math.nan
    return score if score >= 0 else math.nan  # negative: no utterance found


def _check_pair(reconstruction: Tensor, original: Tensor, sample_rate: int) -> None:
    for name, audio in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(audio, Tensor) or not audio.is_floating_point():
            came = audio.dtype if isinstance(audio, Tensor) else type(audio).__name__
            raise InputError(f"expected {name} as a float tensor [batch, 1, samples] in [-1, 1], got {came}")
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.numel() == 0:
            raise InputError(f"expected {name} as [batch, 1, samples], got {list(audio.shape)}")
        if not audio.isfinite().all():
            raise InputError(f"expected {name} in [-1, 1], got samples that are not finite")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )
    if not isinstance(sample_rate, int) or sample_rate < 1:
        raise InputError(f"expected a sample rate as a positive integer in Hz, got {sample_rate!r}")
