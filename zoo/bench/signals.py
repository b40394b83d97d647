"""What every candidate is given, and the lossless files that keep reconstructions until they are measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from zoo import media
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.pictures.images import to_pixels
from zoo.tokenizer import ATOMS, Modality, TokenizerSpec

READ_FRAMES = 16  # of a video at once


@dataclass(frozen=True)
class Signal:
    """A signal in memory.

    Attributes:
        values: float32 batch of one on the CPU, as `Tokenizer.encode` takes it.
        frame_rate: frames per second of video.
    """

    values: Tensor
    frame_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preprocessing(ABC):
    """What is done to files before a candidate sees them, the same for all candidates; one class for each modality.

    Attributes:
        modality: of the files.
        rate_unit: of rates, such as bits per pixel.
        speed_unit: of the speed of encoding and decoding.
        suffix: of the lossless files that `write` writes.
    """

    modality: ClassVar[Modality]
    rate_unit: ClassVar[str]
    speed_unit: ClassVar[str]
    suffix: ClassVar[str]

    @classmethod
    @abstractmethod
    def suiting(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Self:
        """As `preprocessing_for`."""

    def settings(self) -> dict[str, Any]:
        """What the preprocessing is, as plain values, None for what the modality has not."""
        return {name: getattr(self, name, None) for name in ("resolution", "sample_rate", "channels", "seconds")}

    @abstractmethod
    def load(self, path: Path) -> Signal:
        """Read a file and preprocess it; MediaError or InputError as `zoo.media` raises them."""

    def size(self, values: Tensor) -> tuple[int, ...]:
        """Return the size that `Tokenizer.decode` takes: samples, height and width, or these after the frames."""
        return tuple(values.shape[2:])

    @abstractmethod
    def amount(self, signal: Signal) -> float:
        """How much signal there is, in the unit that rates are relative to: pixels, seconds or residues."""

    @abstractmethod
    def rate(self, num_bytes: float, amount: float) -> float:
        """Convert bytes for an `amount` of signal to `rate_unit`."""

    def speed(self, amount: float, seconds: float) -> float:
        """Convert an `amount` of signal in `seconds` to `speed_unit`."""
        return amount / max(seconds, 1e-9)

    @abstractmethod
    def write(self, path: Path, signal: Signal) -> None:
        """Write a file that is lossless but for the rounding to 8 bits per colour or 16 bits per sample.

        Raises:
            InputError: values that are not finite.
        """

    @abstractmethod
    def read(self, path: Path, like: Signal) -> Tensor:
        """Read what `write` wrote, as a batch of one of the size of `like`."""

    def is_valid(self, values: Tensor) -> bool:
        """Whether a reconstruction has no value that is not finite where there should be none."""
        return bool(values.isfinite().all())

    def to_tokenizer(self, values: Tensor, spec: TokenizerSpec) -> Tensor:
        """Convert a signal to what a tokenizer takes, where that differs."""
        return values

    def size_for_tokenizer(self, size: tuple[int, ...], spec: TokenizerSpec) -> tuple[int, ...]:
        """Convert the size of a signal to the size that a tokenizer decodes to before `from_tokenizer`."""
        return size

    def from_tokenizer(self, values: Tensor, spec: TokenizerSpec, size: tuple[int, ...]) -> Tensor:
        """Convert what a tokenizer decoded to the signal that candidates are compared by."""
        return values

    def spec_for_metrics(self, specs: Sequence[TokenizerSpec]) -> TokenizerSpec:
        """Return a spec that describes the preprocessed signals, as the metrics take it."""
        return specs[0]


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing(Preprocessing):
    """Images.

    Attributes:
        resolution: the short side is resized to it and the centre cropped square; None: as the file has it.
    """

    modality = "image"
    rate_unit, speed_unit, suffix = "bits per pixel", "megapixels/s", ".png"

    resolution: int | None = None

    @classmethod
    def suiting(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Self:
        refuse_seconds(seconds)
        return cls(resolution=common_resolution(specs, resolution))

    def load(self, path: Path) -> Signal:
        return Signal(media.load_image(path, resolution=self.resolution)[None])

    def amount(self, signal: Signal) -> float:
        height, width = self.size(signal.values)
        return height * width

    def rate(self, num_bytes: float, amount: float) -> float:
        return 8 * num_bytes / amount

    def speed(self, amount: float, seconds: float) -> float:
        return super().speed(amount, seconds) / 1e6

    def write(self, path: Path, signal: Signal) -> None:
        media.write_image(path, signal.values[0], overwrite=True)

    def read(self, path: Path, like: Signal) -> Tensor:
        return media.load_image(path)[None]


@dataclass(frozen=True, kw_only=True)
class AudioPreprocessing(Preprocessing):
    """Audio.

    Attributes:
        sample_rate: in Hz, to which audio is resampled.
        channels: to which it is mixed.
        seconds: how much is taken from the start; None: all.
    """

    modality = "audio"
    rate_unit, speed_unit, suffix = "kbit/s", "x real time", ".flac"

    sample_rate: int
    channels: int
    seconds: float | None = None

    @classmethod
    def suiting(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Self:
        refuse_resolution(resolution)
        return cls(
            sample_rate=max(sample_rate_of(spec) for spec in specs),
            channels=min(spec.channels for spec in specs),
            seconds=check_seconds(seconds),
        )

    def load(self, path: Path) -> Signal:
        audio, rate = media.read_audio(path, duration=self.seconds)
        audio = media.resample(media.to_channels(audio, self.channels), rate, self.sample_rate)
        return Signal((audio if self.seconds is None else audio[:, : round(self.seconds * self.sample_rate)])[None])

    def amount(self, signal: Signal) -> float:
        return signal.values.shape[2] / self.sample_rate

    def rate(self, num_bytes: float, amount: float) -> float:
        return 8 * num_bytes / amount / 1000

    def write(self, path: Path, signal: Signal) -> None:
        media.write_audio(path, signal.values[0], self.sample_rate, overwrite=True)

    def read(self, path: Path, like: Signal) -> Tensor:
        return media.read_audio(path)[0][None]

    def to_tokenizer(self, values: Tensor, spec: TokenizerSpec) -> Tensor:
        return media.to_channels(media.resample(values, self.sample_rate, sample_rate_of(spec)), spec.channels)

    def size_for_tokenizer(self, size: tuple[int, ...], spec: TokenizerSpec) -> tuple[int, ...]:
        return (-(-size[0] * sample_rate_of(spec) // self.sample_rate),)

    def from_tokenizer(self, values: Tensor, spec: TokenizerSpec, size: tuple[int, ...]) -> Tensor:
        mixed = media.to_channels(values, self.channels)
        return media.resample(mixed, sample_rate_of(spec), self.sample_rate)[..., : size[0]]

    def spec_for_metrics(self, specs: Sequence[TokenizerSpec]) -> TokenizerSpec:
        return next(spec for spec in specs if spec.sample_rate == self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class VideoPreprocessing(Preprocessing):
    """Video.

    Attributes:
        resolution: the short side is resized to it and the centre cropped square; None: as the file has it.
        seconds: how much is taken from the start; None: all.
    """

    modality = "video"
    rate_unit, speed_unit, suffix = "kbit/s", "x real time", ".mkv"

    resolution: int | None = None
    seconds: float | None = None

    @classmethod
    def suiting(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Self:
        return cls(resolution=common_resolution(specs, resolution), seconds=check_seconds(seconds))

    def load(self, path: Path) -> Signal:
        windows, num_frames, frame_rate = [], 0, 0.0
        for window, frame_rate in media.read_video(path, READ_FRAMES):
            if self.resolution is not None:
                images = [media.resize_short_side(image, self.resolution) for image in window.unbind(1)]
                window = torch.stack([media.center_crop(image, self.resolution) for image in images], dim=1)
            windows.append(window)
            num_frames += window.shape[1]
            if self.seconds is not None and num_frames >= self.seconds * frame_rate:
                break
        if not windows:
            raise MediaError(f"{path}: holds no frame")
        kept = num_frames if self.seconds is None else max(1, round(self.seconds * frame_rate))
        return Signal(torch.cat(windows, dim=1)[None, :, :kept].float() / 255, frame_rate)

    def amount(self, signal: Signal) -> float:
        return signal.values.shape[2] / frame_rate_of(signal)

    def rate(self, num_bytes: float, amount: float) -> float:
        return 8 * num_bytes / amount / 1000

    def write(self, path: Path, signal: Signal) -> None:
        write_lossless_video(path, signal.values[0], frame_rate_of(signal))

    def read(self, path: Path, like: Signal) -> Tensor:
        return media.load_video(path)[None]


@dataclass(frozen=True, kw_only=True)
class StructurePreprocessing(Preprocessing):
    """Protein structures, taken as they are."""

    modality = "structure"
    rate_unit, speed_unit, suffix = "bits/residue", "residues/s", ".bcif"

    @classmethod
    def suiting(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Self:
        refuse_resolution(resolution)
        refuse_seconds(seconds)
        return cls()

    def load(self, path: Path) -> Signal:
        return Signal(media.read_structure(path).coordinates[None])

    def size(self, values: Tensor) -> tuple[int, ...]:
        return (values.shape[1],)

    def amount(self, signal: Signal) -> float:
        return signal.values.shape[1]

    def rate(self, num_bytes: float, amount: float) -> float:
        return 8 * num_bytes / amount

    def write(self, path: Path, signal: Signal) -> None:
        media.write_structure(path, signal.values[0], overwrite=True)

    def read(self, path: Path, like: Signal) -> Tensor:
        structure = media.read_structure(path)  # without residues that have no CA
        values = torch.full((like.values.shape[1], len(ATOMS), 3), torch.nan)
        values[torch.tensor(structure.residue_ids) - 1] = structure.coordinates
        return values[None]

    def is_valid(self, values: Tensor) -> bool:
        return bool(values.isfinite().any())  # absent atoms are NaN


PREPROCESSING: dict[Modality, type[Preprocessing]] = {
    kind.modality: kind for kind in (ImagePreprocessing, AudioPreprocessing, VideoPreprocessing, StructurePreprocessing)
}
SPEED_UNIT: dict[str, str] = {modality: kind.speed_unit for modality, kind in PREPROCESSING.items()}


def preprocessing_for(
    specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None
) -> Preprocessing:
    """Choose what suits all variants: the only size that some take, the highest sample rate, the fewest channels.

    Args:
        specs: of at least one variant.
        resolution: of images and video; None: as the files have it, or the only size that a variant takes.
        seconds: of audio and video; None: all.

    Raises:
        InputError: variants of several modalities or fixed sizes, or an option that they do not take.
    """
    first = specs[0]
    if other := next((spec for spec in specs if spec.modality != first.modality), None):
        raise InputError(
            f"{first.name} is for {first.modality}, {other.name} for {other.modality}; compare apart, one modality "
            "after the other"
        )
    return PREPROCESSING[first.modality].suiting(specs, resolution=resolution, seconds=seconds)


def saved_preprocessing(modality: str, settings: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing whose `settings` were saved in results; what they do not name has its default."""
    kind = next(kind for known, kind in PREPROCESSING.items() if known == modality)
    return kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})


def common_resolution(specs: Sequence[TokenizerSpec], resolution: int | None) -> int | None:
    """The side of the squares that all variants take; `resolution` where they take any size."""
    if resolution is not None and resolution < 1:
        raise InputError(f"expected a resolution of at least 1 pixel, got {resolution}")
    sizes = {spec.resolution: spec.name for spec in specs if spec.resolution is not None and not spec.variable_size}
    if len(sizes) > 1:
        taken = ", ".join(f"{name} {height}x{width}" for (height, width), name in sizes.items())
        raise InputError(f"these variants take different sizes ({taken}); compare them apart")
    for (height, width), name in sizes.items():
        if height != width or resolution not in (None, height):
            raise InputError(f"{name} takes {height}x{width}, got resolution {resolution}")
        resolution = height
    return resolution


def check_seconds(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise InputError(f"expected more than 0 seconds, got {seconds}")
    return seconds


def refuse_seconds(seconds: float | None) -> None:
    if seconds is not None:
        raise InputError(f"seconds is an option of audio and video, got {seconds}")


def refuse_resolution(resolution: int | None) -> None:
    if resolution is not None:
        raise InputError(f"resolution is an option of images and video, got {resolution}")


def sample_rate_of(spec: TokenizerSpec) -> int:
    assert spec.sample_rate is not None  # of an audio tokenizer
    return spec.sample_rate


def frame_rate_of(signal: Signal) -> float:
    assert signal.frame_rate is not None  # of a video
    return signal.frame_rate


def write_lossless_video(path: Path, video: Tensor, frame_rate: float) -> None:
    """Write float `[3, T, H, W]` in [0, 1] as FFV1 with 8 bits each of red, green and blue."""
    import av
    from av.video.stream import VideoStream

    if not video.isfinite().all():
        raise InputError("expected video in [0, 1], got values that are not finite")
    with atomic_path(path, overwrite=True) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(frame_rate).limit_denominator(1001))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = video.shape[2:]
        stream.pix_fmt = "bgr0"
        for image in video.unbind(1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_pixels(image), "rgb24")))
        container.mux(stream.encode())
