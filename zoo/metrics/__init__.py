"""How close a reconstruction is to its original: one figure for each item of a batch, or one for a whole set.

The packages that compute a metric are imported when it is first called. Statistics of codes are in
`zoo.metrics.codes`.
"""

from zoo.metrics.audio import (
    AUDIO,
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
from zoo.metrics.image import IMAGE, psnr, ssim
from zoo.metrics.structure import STRUCTURE, rmsd
from zoo.metrics.video import VIDEO

METRICS: dict[str, dict[str, Metric]] = {"image": IMAGE, "audio": AUDIO, "video": VIDEO, "structure": STRUCTURE}

__all__ = [
    "METRICS",
    "Metric",
    "log_f0_rmse",
    "mel_distance",
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
