"""How close a reconstruction is to its original: one figure per item of a batch.

What a metric is computed with is imported when it is first called.
"""

from zoo.metrics.audio import mel_distance, pesq, stoi
from zoo.metrics.image import psnr, ssim

__all__ = ["mel_distance", "pesq", "psnr", "ssim", "stoi"]
