"""What the demo takes of each input, so that it stays quick: the middle of an image, the start of everything else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from zoo import media
from zoo.errors import MediaError
from zoo.tokenizer import Modality, Tokenizer

# The short side of images and clips is resized to these and the centre cropped; a network of one size gets its own.
IMAGE_SIDE, CLIP_SIDE = 256, 128
SECONDS, FRAMES, RESIDUES = 10.0, 33, 256  # taken of audio, video and structures


@dataclass(frozen=True)
class DemoInput:
    """One input of the demo.

    Attributes:
        name: shown, and the stem of the files that are written.
        modality: of the source.
        source: what `Tokenizer.preprocess` takes.
        chain: id of the chain to take from a structure; None: the only one.
    """

    name: str
    modality: Modality
    source: Path | Image
    chain: str | None = None


@dataclass(frozen=True)
class DemoSignal:
    """A batch of one as `Tokenizer.encode` takes it, and the frames per second of video."""

    values: Tensor
    frame_rate: float | None = None


def image_signal(tokenizer: Tokenizer, taken: DemoInput) -> DemoSignal:
    side = IMAGE_SIDE if tokenizer.spec.variable_size else None
    return DemoSignal(tokenizer.preprocess(taken.source, resolution=side))


def audio_signal(tokenizer: Tokenizer, taken: DemoInput) -> DemoSignal:
    sample_rate = tokenizer.spec.sample_rate
    assert sample_rate is not None  # of an audio tokenizer
    return DemoSignal(tokenizer.preprocess(taken.source)[..., : round(SECONDS * sample_rate)])


def video_signal(tokenizer: Tokenizer, taken: DemoInput) -> DemoSignal:
    spec = tokenizer.spec
    assert isinstance(taken.source, Path)  # a clip is never in memory
    side = CLIP_SIDE if spec.resolution is None or spec.variable_size else spec.resolution[0]
    frames, frame_rate = [], None
    for frame, rate in itertools.islice(media.read_video(taken.source, 1), FRAMES):
        frame_rate = rate
        frames.append(media.center_crop(media.resize_short_side(frame[:, 0], side), side))
    if not frames:
        raise MediaError(f"{taken.source}: holds no frame")
    return DemoSignal(torch.stack(frames, dim=1)[None].float() / 255, frame_rate)


def structure_signal(tokenizer: Tokenizer, taken: DemoInput) -> DemoSignal:
    return DemoSignal(tokenizer.preprocess(taken.source, chain=taken.chain)[:, :RESIDUES])


SIGNALS: dict[Modality, Callable[[Tokenizer, DemoInput], DemoSignal]] = {
    "image": image_signal,
    "audio": audio_signal,
    "video": video_signal,
    "structure": structure_signal,
}
