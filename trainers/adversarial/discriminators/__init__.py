"""Discriminators by name, each of one or several networks whose judgements a loss sums up.

Each is a module without state between calls. It takes a signal in the public layout, images and video scaled to
[-1, 1], and returns a list with `(logits, features)` for each of its networks: logits `[items, 1, ...]`, features the
maps that a feature matching loss compares. Frames of a video and channels of audio count as items of their own.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from zoo.trainers.adversarial.discriminators.audio import (
    DAC,
    BigCodecSpectrogram,
    MultiPeriod,
    MultiResolutionSTFT,
    MultiScale,
    MultiScaleSTFT,
)
from zoo.trainers.adversarial.discriminators.image import BlurPatchGAN, PatchGAN, StyleGAN
from zoo.trainers.adversarial.discriminators.stack import BUT_FIRST, HIDDEN
from zoo.trainers.data.options import AudioData, DataOptions, ImageData, StructureData, VideoData

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

# Discriminators by name, for each class of a recipe's data.
DISCRIMINATORS_OF: dict[type[DataOptions], dict[str, Callable[..., nn.Module]]] = {
    ImageData: IMAGE_DISCRIMINATORS,
    VideoData: IMAGE_DISCRIMINATORS,
    AudioData: AUDIO_DISCRIMINATORS,
    StructureData: {},
}

__all__ = [
    "AUDIO_DISCRIMINATORS",
    "DAC",
    "DISCRIMINATORS",
    "DISCRIMINATORS_OF",
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
