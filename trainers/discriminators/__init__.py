"""Discriminators by name, each a family of networks whose judgements a loss sums up.

Every one is a module without state between calls. It takes a signal in the public layout, pictures and video brought to
[-1, 1], and returns a list with `(logits, features)` for each network of the family: logits `[items, 1, ...]`, features
the maps that a feature matching loss compares. Frames of a video and channels of audio count as items of their own.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from zoo.trainers.discriminators.audio import (
    DAC,
    BigCodecSpectrogram,
    MultiPeriod,
    MultiResolutionSTFT,
    MultiScale,
    MultiScaleSTFT,
)
from zoo.trainers.discriminators.image import BlurPatchGAN, PatchGAN, StyleGAN
from zoo.trainers.discriminators.stack import BUT_FIRST, HIDDEN

IMAGE_DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "patchgan": PatchGAN,
    "blur_patchgan": BlurPatchGAN,
    "stylegan": StyleGAN,
}
AUDIO_DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "multi_period": MultiPeriod,
    "multi_scale": MultiScale,
    "multi_scale_stft": MultiScaleSTFT,
    "multi_resolution_stft": MultiResolutionSTFT,
    "dac": DAC,
    "wavtokenizer_period": partial(MultiPeriod, features=BUT_FIRST),
    "bigcodec_period": partial(MultiPeriod, widths=(16, 64, 256, 512, 512), output_kernel=2, features=HIDDEN),
    "bigcodec_spectrogram": BigCodecSpectrogram,
}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {**IMAGE_DISCRIMINATORS, **AUDIO_DISCRIMINATORS}

__all__ = [
    "AUDIO_DISCRIMINATORS",
    "DAC",
    "DISCRIMINATORS",
    "IMAGE_DISCRIMINATORS",
    "BigCodecSpectrogram",
    "BlurPatchGAN",
    "MultiPeriod",
    "MultiResolutionSTFT",
    "MultiScale",
    "MultiScaleSTFT",
    "PatchGAN",
    "StyleGAN",
]
