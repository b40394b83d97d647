"""Opinion scores of speech that networks predict from the reconstruction alone: DNSMOS and PLCMOS.

The networks are those in the package speechmos (Microsoft, MIT license), run by onnxruntime; nothing else of the
package is used, since it needs librosa.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError, WeightsUnavailableError
from zoo.media import resample
from zoo.metrics.speech import SPEECH_RATE, check_pair

if TYPE_CHECKING:
    import onnxruntime

SECONDS = 9.01  # of the input of DNSMOS
RATINGS = ("signal", "background", "overall")
CALIBRATION = {  # of the raw ratings, from the square to the constant
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
P808_WINDOW, P808_HOP, P808_BANDS = 321, 160, 120
P808_RANGE = 80.0  # dB below the loudest that are kept
PLC_WINDOW, PLC_HOP = 512, 256
PLC_ZERO = -12 * math.log(10)  # natural logarithm below that of the weakest power, for powers of zero
PLC_RATERS, PLC_RATER_SIZE = 15, 64
NETWORKS = {
    "dnsmos": "dnsmos_models/sig_bak_ovr.onnx",
    "p808": "dnsmos_models/model_v8.onnx",
    "plcmos": "plcmos_models/plcmos_v2.onnx",
}


def dnsmos(
    reconstruction: Tensor,
    original: Tensor,
    sample_rate: int,
    *,
    rating: Literal["signal", "background", "overall"] = "overall",
) -> Tensor:
    """DNSMOS P.835 (Reddy et al. 2022): predicted opinion of the speech, of the background, or overall.

    It is computed at 16 kHz over windows of 9.01 seconds, one a second, and averaged; a shorter clip is repeated until
    it is long enough.

    Args:
        reconstruction: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        original: the same shape; not used.
        sample_rate: Hz.
        rating: what is rated.

    Returns:
        float64 `[B]`, about 1 to 5, higher is better. NaN for silence.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        WeightsUnavailableError: speechmos or onnxruntime is not installed.
    """
    if rating not in RATINGS:
        raise InputError(f"expected a rating among {', '.join(RATINGS)}, got {rating!r}")
    index = RATINGS.index(rating)
    return _each_clip(reconstruction, original, sample_rate, lambda clip: _dnsmos(clip)[index])


def dnsmos_p808(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """DNSMOS P.808 (Reddy et al. 2021): predicted opinion of the quality; all else as in `dnsmos`."""
    return _each_clip(reconstruction, original, sample_rate, _p808)


def plcmos(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """PLCMOS version 2 (Diener et al. 2023): predicted opinion of speech whose lost packets were concealed.

    The mean over the network's opinions as 15 raters, who are drawn at random once and for all. All else is as in
    `dnsmos`, but that a clip is rated as a whole.
    """
    return _each_clip(reconstruction, original, sample_rate, _plcmos)


def opinion_missing() -> str | None:
    """Return how to get the networks and what runs them; None: they are there."""
    for package in ("speechmos", "onnxruntime"):
        if find_spec(package) is None:
            return f'needs the package {package}: pip install "tokenizer-zoo[metrics]"'
    return None


def _each_clip(reconstruction: Tensor, original: Tensor, sample_rate: int, figure: Callable[[bytes], float]) -> Tensor:
    check_pair(reconstruction, original, sample_rate)
    if reason := opinion_missing():
        raise WeightsUnavailableError(f"this metric {reason}")
    clips = resample(reconstruction[:, 0].detach().float(), sample_rate, SPEECH_RATE).clamp(-1, 1).cpu().numpy()
    scores = [figure(clip.tobytes()) if clip.any() else math.nan for clip in clips]
    return torch.tensor(scores, dtype=torch.float64, device=original.device)


def _windows(clip: bytes) -> list[np.ndarray]:
    """Return windows of 9.01 seconds of float32 samples at 16 kHz, one a second, as many as the authors take."""
    samples = np.frombuffer(clip, np.float32)
    length = int(SECONDS * SPEECH_RATE)
    while len(samples) < length:
        samples = np.concatenate([samples, samples])
    number = int(len(samples) // SPEECH_RATE - SECONDS) + 1
    return [samples[start * SPEECH_RATE :][:length] for start in range(number)]


@lru_cache(maxsize=8)  # three metrics ask for the same
def _dnsmos(clip: bytes) -> tuple[float, ...]:
    raw = np.array([_run("dnsmos", input_1=window[None])[0] for window in _windows(clip)], np.float64)
    ratings = (np.polyval(CALIBRATION[name], raw[:, index]).mean() for index, name in enumerate(RATINGS))
    return tuple(map(float, ratings))


def _p808(clip: bytes) -> float:
    taper = torch.hann_window(P808_WINDOW)
    scores = []
    for window in _windows(clip):
        samples = torch.from_numpy(window[:-P808_HOP].copy())
        spectrum = torch.stft(samples, P808_WINDOW, P808_HOP, window=taper, pad_mode="constant", return_complex=True)
        power = spectrum.abs().square().mT @ _mel_bands()  # [frames, bands]
        level = 10 * (power.clamp(min=1e-10).log10() - power.max().clamp(min=1e-10).log10())
        scores.append(_run("p808", input_1=((level.clamp(min=level.max() - P808_RANGE) + 40) / 40)[None].numpy())[0])
    return float(np.mean(scores))


@cache
def _mel_bands() -> Tensor:
    """Return triangles of area 1 between points that are even on Slaney's mel scale, `[frequencies, bands]`.

    torchaudio's take the window to be of even length.
    """
    mels = np.linspace(0, 15 + 27 * math.log(SPEECH_RATE / 2 / 1000) / math.log(6.4), P808_BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))  # Hz
    frequencies = np.fft.rfftfreq(P808_WINDOW, 1 / SPEECH_RATE)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    bands = np.minimum(rising, falling).clip(min=0) * 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(bands.astype(np.float32))


def _plcmos(clip: bytes) -> float:
    samples = np.frombuffer(clip, np.float32)
    padded = np.pad(samples, (PLC_WINDOW - PLC_HOP, PLC_WINDOW - PLC_HOP + -len(samples) % PLC_HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, PLC_WINDOW)[::PLC_HOP]
    power = np.abs(np.fft.rfft(frames * np.hamming(PLC_WINDOW + 1)[:-1])) ** 2
    level = np.log(power, out=np.full_like(power, -np.inf), where=power > 0)
    level = np.where(power > 0, level, level[power > 0].min() + PLC_ZERO)
    features = (level / 20).astype(np.float32)[None, None]
    raters = np.random.RandomState(0).normal(size=(PLC_RATERS, 1, PLC_RATER_SIZE)).astype(np.float32)
    return float(np.mean([_run("plcmos", degraded_audio=features, rater_embed=rater) for rater in raters]))


def _run(network: str, **inputs: np.ndarray) -> np.ndarray:
    return np.asarray(_session(network).run(None, inputs)[0])


@cache
def _session(network: str) -> onnxruntime.InferenceSession:
    import onnxruntime

    package = find_spec("speechmos")  # found without an import, which needs librosa
    assert package is not None and package.submodule_search_locations is not None, "`opinion_missing` has looked"
    path = Path(next(iter(package.submodule_search_locations))) / NETWORKS[network]
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
