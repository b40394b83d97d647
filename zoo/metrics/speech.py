"""Speech: intelligibility, perceptual quality, pitch and the speaker's voice."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError, WeightsUnavailableError
from zoo.media import resample
from zoo.tracing import values_are_readable

SPEECH_RATE = 16000  # Hz, at which PESQ, pitch and voice are computed

# From the 51st utterance on, the implementation of PESQ writes past the end of its arrays, and mostly crashes. An
# utterance lasts at least 0.2 seconds, and so does a pause, so clips longer than this are left to another process.
PESQ_SAFE_SECONDS = 20
PESQ_PROGRAM = """
import sys, numpy, pesq
clean, degraded = numpy.frombuffer(sys.stdin.buffer.read(), numpy.float32).reshape(2, -1)
print(pesq.pesq(16000, clean, degraded, sys.argv[1], on_error=pesq.PesqError.RETURN_VALUES))
"""

PITCH_RANGE = (40.0, 800.0)  # Hz
PITCH_STEP = 5.0  # milliseconds
SWIFT_F0_CONFIDENCE = 0.5  # from which a frame is voiced, as the package has it
PitchExtractor = Literal["harvest", "swift-f0"]
PITCH_SECONDS = 0.1  # shortest clip that has a pitch

VOICE_FRAMES = 160  # window of the voice encoder: 1.6 seconds
VOICE_STEP = 77  # frames from one window to the next: 1.3 windows a second
VOICE_COVERAGE = 0.75  # share of the last window that must be filled for it to count
VOICE_LEVEL = 10 ** (-30 / 20)  # root mean square that quieter clips are raised to


def stoi(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Short-time objective intelligibility of speech (Taal et al. 2011), by pystoi, which resamples to 10 kHz.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1].
        sample_rate: Hz of both.

    Returns:
        float64 `[B]`, about 0 to 1, higher is better. NaN where STOI is not defined: where the original is silent, or
        less than 0.4 seconds of it are within 40 dB of its loudest frame.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
    """
    check_pair(reconstruction, original, sample_rate)
    import pystoi

    def score(degraded: Tensor, clean: Tensor) -> float:
        if clean.shape[0] < 0.4 * sample_rate or not clean.any():
            return math.nan
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return float(pystoi.stoi(clean.cpu().numpy(), degraded.cpu().numpy(), sample_rate))
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
        InputError: a wrong type, shape, dtype, rate or band, two shapes that differ, or a sample that is not finite.
        ImportError: the package `pesq` is not installed.
    """
    check_pair(reconstruction, original, sample_rate)
    if band not in ("wb", "nb"):
        raise InputError(f"expected band 'wb' or 'nb', got {band!r}")
    if find_spec("pesq") is None:
        raise ImportError('pesq() needs the package pesq: pip install "tokenizer-zoo[metrics]"')
    pair = torch.cat([reconstruction, original])[:, 0].detach().float()
    degraded, clean = resample(pair, sample_rate, SPEECH_RATE).cpu().numpy().reshape(2, len(original), -1)
    scores = [_pesq_score(*clips, band) for clips in zip(clean, degraded, strict=True)]
    return torch.tensor(scores, dtype=torch.float64, device=original.device)


def _pesq_score(clean: np.ndarray, degraded: np.ndarray, band: str) -> float:
    """Return PESQ of float32 `[samples]` at 16 kHz; NaN where it is not defined."""
    import pesq

    if len(clean) < SPEECH_RATE / 4 or not degraded.any():
        return math.nan
    if len(clean) <= PESQ_SAFE_SECONDS * SPEECH_RATE:
        score = pesq.pesq(SPEECH_RATE, clean, degraded, band, on_error=pesq.PesqError.RETURN_VALUES)
    else:
        command = [sys.executable, "-c", PESQ_PROGRAM, band]
        process = subprocess.run(command, input=clean.tobytes() + degraded.tobytes(), capture_output=True)
        if process.returncode > 0:
            raise RuntimeError(f"PESQ failed: {process.stderr.decode(errors='replace')}")
        score = float(process.stdout) if process.returncode == 0 else math.nan
    return score if score >= 0 else math.nan  # negative: no utterance found


def log_f0_rmse(
    reconstruction: Tensor, original: Tensor, sample_rate: int, *, extractor: PitchExtractor = "harvest"
) -> Tensor:
    """Root mean square difference of the natural logarithm of F0, over the frames that are voiced in both.

    F0 is computed at 16 kHz by Harvest (Morise 2017; pyworld), from 40 to 800 Hz, every 5 ms: the definition of
    ESPnet's `evaluate_f0.py`, without its time warping, since a reconstruction is as long as its original. A semitone
    is 0.058. SwiftF0 (arXiv 2508.18440) is a network in the package swift-f0, which needs no compiler where pyworld
    does; it is computed from 47 to 800 Hz, every 16 ms, and figures of the two cannot be compared.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        sample_rate: Hz of both.
        extractor: "harvest" or "swift-f0".

    Returns:
        float64 `[B]`, at least 0, lower is better. NaN where no frame is voiced in both, and for clips shorter than
        0.1 seconds.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        ImportError: the package of the extractor is not installed.
    """
    return _compare_pitch(reconstruction, original, sample_rate, _log_difference, extractor)


def voicing_error(
    reconstruction: Tensor, original: Tensor, sample_rate: int, *, extractor: PitchExtractor = "harvest"
) -> Tensor:
    """Share of the frames that are voiced in only one of the two: voicing decision error (Nakatani et al. 2008).

    A frame is voiced if it has an F0, computed as in `log_f0_rmse`.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        sample_rate: Hz of both.
        extractor: "harvest" or "swift-f0".

    Returns:
        float64 `[B]` in [0, 1], lower is better. NaN for clips shorter than 0.1 seconds.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        ImportError: the package of the extractor is not installed.
    """
    return _compare_pitch(reconstruction, original, sample_rate, _voiced_in_one, extractor)


def pitch_missing(extractor: PitchExtractor = "harvest") -> str | None:
    """Return how to get the package that computes F0; None: it is installed."""
    return _package_missing({"harvest": "pyworld", "swift-f0": "swift-f0"}[extractor])


def pesq_missing() -> str | None:
    """Return how to get the package that computes PESQ; None: it is installed."""
    return _package_missing("pesq")


def _package_missing(name: str) -> str | None:
    if find_spec(name.replace("-", "_")) is not None:
        return None
    return f'needs the package {name}: pip install "tokenizer-zoo[metrics]"'


def _compare_pitch(
    reconstruction: Tensor,
    original: Tensor,
    sample_rate: int,
    compare: Callable[[np.ndarray, np.ndarray], float],
    extractor: PitchExtractor,
) -> Tensor:
    check_pair(reconstruction, original, sample_rate)
    reason = pitch_missing(extractor)
    if reason is not None:
        raise ImportError(f"this metric {reason}")
    pair = torch.cat([reconstruction, original])[:, 0].detach().float()
    clips = resample(pair, sample_rate, SPEECH_RATE).cpu().numpy()
    if clips.shape[1] < PITCH_SECONDS * SPEECH_RATE:
        return torch.full((len(original),), math.nan, dtype=torch.float64, device=original.device)
    pitch = {"harvest": _harvest, "swift-f0": _swift_f0}[extractor]
    contours = [pitch(clip.tobytes()) for clip in clips]
    scores = [compare(*both) for both in zip(contours[: len(original)], contours[len(original) :], strict=True)]
    return torch.tensor(scores, dtype=torch.float64, device=original.device)


def _log_difference(first: np.ndarray, second: np.ndarray) -> float:
    voiced = (first > 0) & (second > 0)
    return float(np.sqrt(np.mean(np.log(first[voiced] / second[voiced]) ** 2))) if voiced.any() else math.nan


def _voiced_in_one(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean((first > 0) != (second > 0)))


@lru_cache(maxsize=32)  # Harvest is slow, and two metrics ask for the same contours
def _harvest(clip: bytes) -> np.ndarray:
    """Return F0 of float32 samples at 16 kHz, every 5 ms; 0 where unvoiced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*pkg_resources")
        import pyworld
    floor, ceiling = PITCH_RANGE
    samples = np.frombuffer(clip, np.float32).astype(np.float64)
    return pyworld.harvest(samples, SPEECH_RATE, f0_floor=floor, f0_ceil=ceiling, frame_period=PITCH_STEP)[0]


@lru_cache(maxsize=32)
def _swift_f0(clip: bytes) -> np.ndarray:
    """Return F0 of float32 samples at 16 kHz, every 16 ms; 0 where unvoiced."""
    found = _swift_f0_detector().detect(np.frombuffer(clip, np.float32), SPEECH_RATE, fmax=PITCH_RANGE[1])
    return np.where(found.confidence >= SWIFT_F0_CONFIDENCE, found.pitch_hz, 0)


@cache
def _swift_f0_detector() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)


@torch.no_grad()
def speaker_similarity(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Cosine similarity of speaker embeddings by Resemblyzer's voice encoder (GE2E, Wan et al. 2018).

    It is computed at 16 kHz. Clips quieter than -30 dB of full scale are raised to it; the input is the squared
    magnitudes of a Hann-windowed STFT of 400 samples every 160, in 40 bands on Slaney's scale. Windows of 1.6 seconds,
    1.3 a second, go through three LSTM layers of 256, and their embeddings are averaged, as in Resemblyzer's
    `normalize_volume` and `embed_utterance`. Its `preprocess_wav`, which cuts silences out of each clip on its own, is
    left out, so that both clips are embedded over the same stretches.

    The weights are those in the package resemblyzer, of which nothing else is used.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz. Clips shorter than
            1.6 seconds are padded with silence.
        sample_rate: Hz of both.

    Returns:
        float64 `[B]` in [0, 1], higher is better. NaN where one of the two is silent.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        WeightsUnavailableError: the package resemblyzer is not installed, or has no weights in it.
    """
    check_pair(reconstruction, original, sample_rate)
    reason = voice_missing()
    if reason is not None:
        raise WeightsUnavailableError(f"this metric {reason}")
    encoder = _voice_encoder(_voice_weights()).to(original.device)
    pair = torch.cat([reconstruction, original])[:, 0].float()
    first, second = encoder(resample(pair, sample_rate, SPEECH_RATE)).chunk(2)
    return (first * second).sum(dim=1)


def voice_missing() -> str | None:
    """Return where the voice encoder's weights were looked for and how to get them; None: they are there."""
    path = _voice_weights()
    get = "pip install --no-deps resemblyzer (17 MB; what it depends on is not used)"
    if path is None:
        return f"needs the weights of the voice encoder, pretrained.pt in the package resemblyzer, not installed: {get}"
    if not path.is_file():
        return f"needs the weights of the voice encoder: {path} is not there; {get}"
    return None


def _voice_weights() -> Path | None:
    package = find_spec("resemblyzer")  # found without an import, which needs librosa and numba
    folders = package.submodule_search_locations if package is not None else None
    return Path(next(iter(folders))) / "pretrained.pt" if folders else None


@cache
def _voice_encoder(path: Path) -> VoiceEncoder:
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = VoiceEncoder()
    encoder.load_state_dict({key: value for key, value in weights.items() if not key.startswith("similarity_")})
    return encoder.eval()


class VoiceEncoder(nn.Module):
    """Float32 `[B, samples]` at 16 kHz to speaker embeddings `[B, 256]` of length 1; NaN for silence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, clips: Tensor) -> Tensor:
        level = clips.square().mean(dim=1, keepdim=True).sqrt()
        clips = clips * (VOICE_LEVEL / level).clamp(min=1)  # NaN for silence
        windows = self.windows(clips)  # [B, windows, frames, bands]
        _, (hidden, _) = self.lstm(windows.flatten(0, 1))
        embeddings = F.normalize(self.linear(hidden[-1]).relu(), dim=1)
        return F.normalize(embeddings.unflatten(0, windows.shape[:2]).mean(dim=1).double(), dim=1)

    def windows(self, clips: Tensor) -> Tensor:
        """Mel spectrograms of overlapping stretches: `[B, windows, VOICE_FRAMES, 40]`."""
        import torchaudio

        hop = SPEECH_RATE // 100
        samples = clips.shape[1]
        starts = list(range(0, max(1, samples // hop + 2 - VOICE_FRAMES + VOICE_STEP), VOICE_STEP))
        if len(starts) > 1 and samples - starts[-1] * hop < VOICE_COVERAGE * VOICE_FRAMES * hop:
            starts.pop()
        clips = F.pad(clips, (0, max(0, (starts[-1] + VOICE_FRAMES) * hop - samples)))
        mel = torchaudio.transforms.MelSpectrogram(
            SPEECH_RATE,
            n_fft=400,
            hop_length=hop,
            n_mels=40,
            mel_scale="slaney",
            norm="slaney",
            pad_mode="constant",
        )
        bands = mel.to(clips.device)(clips).mT  # [B, frames, bands]
        return torch.stack([bands[:, start : start + VOICE_FRAMES] for start in starts], dim=1)


def check_pair(reconstruction: Tensor, original: Tensor, sample_rate: int) -> None:
    """Raise InputError unless both are float `[B, 1, samples]`, finite, of one shape, and the rate is positive."""
    for name, audio in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(audio, Tensor) or not audio.is_floating_point():
            came = audio.dtype if isinstance(audio, Tensor) else type(audio).__name__
            raise InputError(f"expected {name} as a float tensor [batch, 1, samples] in [-1, 1], got {came}")
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.numel() == 0:
            raise InputError(f"expected {name} as [batch, 1, samples], got {list(audio.shape)}")
        if values_are_readable(audio) and not audio.isfinite().all():
            raise InputError(f"expected {name} in [-1, 1], got samples that are not finite")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )
    if not isinstance(sample_rate, int) or sample_rate < 1:
        raise InputError(f"expected a sample rate as a positive integer in Hz, got {sample_rate!r}")
