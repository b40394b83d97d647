"""Signals as files hold them to training crops, and to the fixed excerpts that are validated."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.tokenizer import TokenizerSpec
from zoo.trainers.recipe import AudioData, DataOptions, ImageData, VideoData


def crop(signal: Tensor, options: DataOptions, spec: TokenizerSpec, random: np.random.Generator) -> Tensor:
    """A random part of what `Files` gives, as `Crops` gives it."""
    if isinstance(options, ImageData):
        return crop_image(signal, options, random)
    if isinstance(options, AudioData):
        return crop_audio(signal, options, spec.sample_rate, random)
    if isinstance(options, VideoData):
        return crop_video(signal, options, random)
    length = min(len(signal), options.max_residues)
    start = int(random.integers(len(signal) - length + 1))
    return signal[start : start + length]


def excerpt(signal: Tensor, options: DataOptions, spec: TokenizerSpec) -> Tensor:
    """A fixed part: centres of pictures, the first seconds, frames or residues of what is longer."""
    if isinstance(options, ImageData):
        return centre_square(signal, options.crop)
    if isinstance(options, AudioData):
        length = round(options.seconds * spec.sample_rate)
        peak = 10 ** (sum(options.peak_db) / 40)
        return repeated(signal, length)[:, :length].float() * (peak / 32767)
    if isinstance(options, VideoData):
        return centre_square(clip(signal, options, start=0), options.crop)
    return signal[: options.max_residues]


def crop_image(image: Tensor, options: ImageData, random: np.random.Generator) -> Tensor:
    """uint8 `[3, H, W]` to a random `[3, crop, crop]`."""
    low, high = options.scale
    # The part that a crop of the resized picture shows is cut out first, then resized.
    return random_square(image, round(options.crop / random.uniform(low, high)), options.crop, options.flip, random)


def crop_audio(audio: Tensor, options: AudioData, sample_rate: int, random: np.random.Generator) -> Tensor:
    """int16 `[channels, samples]` to a random float32 crop of `options.seconds`."""
    length = round(options.seconds * sample_rate)
    peak = 10 ** (random.uniform(*options.peak_db) / 20)
    audio = repeated(audio, length)
    start = int(random.integers(audio.shape[1] - length + 1))
    return audio[:, start : start + length].float() * (peak / 32767)


def crop_video(video: Tensor, options: VideoData, random: np.random.Generator) -> Tensor:
    """uint8 `[3, T, H, W]` to a random `[3, frames, crop, crop]`."""
    span = (options.frames - 1) * options.frame_stride + 1
    start = int(random.integers(max(1, video.shape[1] - span + 1)))
    return random_square(clip(video, options, start), options.crop, options.crop, options.flip, random)


def clip(video: Tensor, options: VideoData, start: int) -> Tensor:
    """`options.frames` of `[3, T, H, W]` from `start`; the last again and again where there are too few."""
    numbers = start + options.frame_stride * torch.arange(options.frames)
    return video[:, numbers.clamp(max=video.shape[1] - 1)]


def random_square(pictures: Tensor, part: int, side: int, flip: bool, random: np.random.Generator) -> Tensor:
    """A random square of `part` pixels a side, or as many as there are, resized to `side`; uint8 `[3, ..., H, W]`."""
    part = min(part, *pictures.shape[-2:])
    top, left = (int(random.integers(length - part + 1)) for length in pictures.shape[-2:])
    square = pictures[..., top : top + part, left : left + part]
    if flip and random.random() < 0.5:
        square = square.flip(-1)
    return resize_square(square, side)


def centre_square(pictures: Tensor, side: int) -> Tensor:
    """The middle of uint8 `[3, ..., H, W]`, resized where it is smaller than `side`."""
    part = min(side, *pictures.shape[-2:])
    top, left = (round((length - part) / 2) for length in pictures.shape[-2:])
    return resize_square(pictures[..., top : top + part, left : left + part], side)


def repeated(audio: Tensor, length: int) -> Tensor:
    """`[channels, samples]` end to end until there are at least `length` samples."""
    return audio.repeat(1, -(-length // audio.shape[1])) if audio.shape[1] < length else audio


def resize_square(pictures: Tensor, side: int) -> Tensor:
    """uint8 `[3, ..., H, H]` to `[3, ..., side, side]`, with antialiasing."""
    if pictures.shape[-1] == side:
        return pictures.contiguous()
    flat = pictures.flatten(0, -3)[None]
    return F.interpolate(flat, (side, side), mode="bilinear", antialias=True, align_corners=False).view(
        *pictures.shape[:-2], side, side
    )
