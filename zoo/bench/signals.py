"""What every candidate is given, and the lossless files that reconstructions are kept in and measured from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo import media
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.modalities.structure import ATOMS
from zoo.spec import TokenizerSpec

RATE_UNIT = {"image": "bits per pixel", "audio": "kbit/s", "video": "kbit/s", "structure": "bits/residue"}
SPEED_UNIT = {"image": "megapixels/s", "audio": "x real time", "video": "x real time", "structure": "residues/s"}
LOSSLESS_SUFFIX = {"image": ".png", "audio": ".flac", "video": ".mkv", "structure": ".bcif"}


@dataclass(frozen=True)
class Signal:
    """values: float32 batch of one on the CPU, as `Tokenizer.encode` takes it. frame_rate: of video, a second."""

    values: Tensor
    frame_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What files become before a candidate sees them, the same for all.

    resolution: of images and video; the short side is resized to it and the centre cropped square; None: as it is.
    sample_rate, channels: of audio, to which it is resampled and mixed.
    seconds: of audio and video; what follows is left out; None: all.
    """

    modality: str
    resolution: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Preprocessing:
        """What suits all variants: the only size that some take, the highest sample rate, the fewest channels.

        Raises:
            InputError: variants of several modalities or fixed sizes, or a `resolution` that is not theirs.
        """
        first = specs[0]
        if other := next((spec for spec in specs if spec.modality != first.modality), None):
            raise InputError(f"{first.name} is for {first.modality}, {other.name} for {other.modality}; compare apart")
        visual, timed = first.modality in ("image", "video"), first.modality in ("audio", "video")
        if resolution is not None and not (visual and resolution >= 1):
            raise InputError(f"expected a resolution of at least 1, of images or video; got {resolution}")
        if seconds is not None and not (timed and seconds > 0):
            raise InputError(f"expected more than 0 seconds, of audio or video; got {seconds}")
        sizes = {spec.resolution: spec.name for spec in specs if visual and not spec.variable_size}
        if len(sizes) > 1:
            taken = ", ".join(f"{name} {height}x{width}" for (height, width), name in sizes.items())
            raise InputError(f"these take images of different sizes ({taken}); compare them apart")
        for (height, width), name in sizes.items():
            if height != width or resolution not in (None, height):
                raise InputError(f"{name} takes {height}x{width}, got resolution {resolution}")
            resolution = height
        audio = first.modality == "audio"
        return cls(
            modality=first.modality,
            resolution=resolution,
            sample_rate=max(spec.sample_rate for spec in specs) if audio else None,
            channels=min(spec.channels for spec in specs) if audio else None,
            seconds=seconds,
        )

    def load(self, path: Path) -> Signal:
        """A file to what candidates are given; MediaError or InputError as `zoo.media` has them."""
        if self.modality == "image":
            return Signal(media.load_image(path, resolution=self.resolution)[None])
        if self.modality == "audio":
            return Signal(self._load_audio(path)[None])
        if self.modality == "video":
            return self._load_video(path)
        return Signal(media.read_structure(path).coordinates[None])

    def _load_audio(self, path: Path) -> Tensor:
        audio, rate = media.read_audio(path, duration=self.seconds)
        audio = media.resample(media.to_channels(audio, self.channels), rate, self.sample_rate)
        return audio if self.seconds is None else audio[:, : round(self.seconds * self.sample_rate)]

    def _load_video(self, path: Path) -> Signal:
        windows, frames, frame_rate = [], 0, 0.0
        for window, frame_rate in media.read_video(path, 16):
            if self.resolution is not None:
                pictures = [media.resize_short_side(picture, self.resolution) for picture in window.unbind(1)]
                window = torch.stack([media.center_crop(picture, self.resolution) for picture in pictures], dim=1)
            windows.append(window)
            frames += window.shape[1]
            if self.seconds is not None and frames >= self.seconds * frame_rate:
                break
        if not windows:
            raise MediaError(f"{path}: holds no frame")
        kept = frames if self.seconds is None else max(1, round(self.seconds * frame_rate))
        return Signal(torch.cat(windows, dim=1)[None, :, :kept].float() / 255, frame_rate)

    def size(self, values: Tensor) -> tuple[int, ...]:
        """The axes that `decode(size=)` counts: samples, height and width, frames and these, or residues."""
        if self.modality == "structure":
            return (values.shape[1],)
        return tuple(values.shape[2:])

    def amount(self, signal: Signal) -> float:
        """What rates are relative to: pixels of an image, seconds of audio or video, residues."""
        length, *sides = self.size(signal.values)
        if self.modality == "image":
            return length * sides[0]
        if self.modality == "structure":
            return length
        return length / (self.sample_rate if self.modality == "audio" else signal.frame_rate)

    def rate(self, num_bytes: float, amount: float) -> float:
        """Of bytes for an `amount` of signal, in `RATE_UNIT`."""
        return 8 * num_bytes / amount / (1000 if self.modality in ("audio", "video") else 1)

    def speed(self, amount: float, seconds: float) -> float:
        """Of an `amount` of signal in `seconds`, in `SPEED_UNIT`."""
        return amount / max(seconds, 1e-9) / (1e6 if self.modality == "image" else 1)

    def write(self, path: Path, signal: Signal) -> None:
        """A lossless file but for the rounding that any file has: 8 bits a colour, 16 bits a sample.

        Raises:
            InputError: values that are not finite.
        """
        values = signal.values[0]
        if self.modality == "image":
            media.write_image(path, values, overwrite=True)
        elif self.modality == "audio":
            media.write_audio(path, values, self.sample_rate, overwrite=True)
        elif self.modality == "video":
            write_lossless_video(path, values, signal.frame_rate)
        else:
            media.write_structure(path, values, overwrite=True)

    def read(self, path: Path, like: Signal) -> Tensor:
        """What `write` wrote, in the size of the signal `like`."""
        if self.modality == "image":
            return media.load_image(path)[None]
        if self.modality == "audio":
            return media.read_audio(path)[0][None]
        if self.modality == "video":
            return media.load_video(path)[None]
        structure = media.read_structure(path)  # without residues that have no CA
        values = torch.full((like.values.shape[1], len(ATOMS), 3), torch.nan)
        values[torch.tensor(structure.residue_ids) - 1] = structure.coordinates
        return values[None]


def write_lossless_video(path: Path, video: Tensor, frame_rate: float) -> None:
    """Float `[3, T, H, W]` in [0, 1] to FFV1 with 8 bits of red, green and blue."""
    import av

    if not video.isfinite().all():
        raise InputError("expected video in [0, 1], got values that are not finite")
    with atomic_path(path, overwrite=True) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(frame_rate).limit_denominator(1001))
        stream.height, stream.width = video.shape[2:]
        stream.pix_fmt = "bgr0"
        for picture in video.unbind(1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_pixels(picture), "rgb24")))
        container.mux(stream.encode())


def to_pixels(image: Tensor) -> np.ndarray:
    """Float `[3, H, W]` in [0, 1] to uint8 `[H, W, 3]`."""
    pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def from_pixels(pixels: np.ndarray) -> Tensor:
    """uint8 `[H, W, 3]` to float32 `[3, H, W]` in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
