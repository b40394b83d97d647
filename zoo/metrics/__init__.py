"""How close a reconstruction is to its original: one figure for each item of a batch, or one for a whole set.

The packages that compute a metric are imported when it is first called. Statistics of codes are in
`zoo.metrics.codes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.errors import InputError
from zoo.metrics.audio import (
    AUDIO,
    AUDIO_SETTINGS,
    log_f0_rmse,
    mel_distance,
    pesq,
    si_sdr,
    speaker_similarity,
    stft_distance,
    stoi,
    voicing_error,
)
from zoo.metrics.base import Metric
from zoo.metrics.image import IMAGE, IMAGE_SETTINGS, psnr, ssim
from zoo.metrics.structure import STRUCTURE, rmsd
from zoo.metrics.video import VIDEO, VIDEO_SETTINGS

METRICS: dict[str, dict[str, Metric]] = {"image": IMAGE, "audio": AUDIO, "video": VIDEO, "structure": STRUCTURE}

_WITH_SETTINGS: dict[str, dict[str, Callable[..., Metric]]] = {
    "image": IMAGE_SETTINGS,
    "audio": AUDIO_SETTINGS,
    "video": VIDEO_SETTINGS,
}


def metric_with(modality: str, name: str, settings: Mapping[str, Any]) -> Metric:
    """Return a metric with settings other than those in `METRICS`, as evaluations of the field have them.

    Args:
        modality: such as "image".
        name: a name in `METRICS[modality]`, or "waveform_distance" of audio.
        settings: keywords of the metric's function; empty: the default ones.

    Raises:
        InputError: an unknown metric, or settings that it does not have.
    """
    known, made = METRICS[modality], _WITH_SETTINGS.get(modality, {})
    if name not in known and name not in made:
        raise InputError(f"unknown {modality} metric {name!r}; there are {', '.join(known)}")
    if name in made:
        try:
            return made[name](**settings)
        except TypeError as error:
            raise InputError(f"{modality} metric {name!r} does not take {dict(settings)}: {error}") from error
    if settings:
        raise InputError(f"{modality} metric {name!r} has no settings, got {dict(settings)}")
    return known[name]


__all__ = [
    "METRICS",
    "Metric",
    "log_f0_rmse",
    "mel_distance",
    "metric_with",
    "pesq",
    "psnr",
    "rmsd",
    "si_sdr",
    "speaker_similarity",
    "ssim",
    "stft_distance",
    "stoi",
    "voicing_error",
]
