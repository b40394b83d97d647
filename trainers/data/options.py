"""How training data are cut: the `data` key of a recipe, one class for each modality. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo.errors import InputError

MOST_WORKERS = 256
MOST_STRIDE = 10**6  # frame step
QUIETEST_DB = -120.0


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options that all modalities share.

    cache_gib: memory in GiB for decoded files; files that do not fit are read from disk each time.
    workers: processes that read files; None: none where all files are in memory, else 2.
    SIZES: names of the fields that decide how large a crop is.
    """

    SIZES: ClassVar[tuple[str, ...]] = ()

    cache_gib: float = 2.0
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.cache_gib >= 0 or (self.workers is not None and self.workers < 0):
            raise InputError(
                f"recipe: expected data.cache_gib and data.workers >= 0, got {self.cache_gib} and {self.workers}"
            )
        if self.workers is not None and self.workers > MOST_WORKERS:
            raise InputError(f"recipe: expected data.workers of at most {MOST_WORKERS}, got {self.workers}")

    def values(self, channels: int, sample_rate: int | None) -> float:
        """Number of values in a crop of a signal with `channels` channels; where crops differ in size, the least."""
        return channels


@dataclass(frozen=True, kw_only=True)
class ImageData(ReadingOptions):
    """How training images are cut; `ReadingOptions` has the other fields.

    inputs: folder of images that the tokenizer gets in place of the training images, each with the path of a training
        image apart from the suffix; the losses compare with the training images. Used to train a decoder on what
        generators make (RobusTok's post-training). None: the tokenizer gets the training images. See
        `zoo.trainers.data.signals.Pairs`.
    shorter_side: pixels to which an image's shorter side is resized when it is read; None: the file's own size.
    crop: height and width in pixels.
    flip: whether each image is mirrored with a probability of one half.
    scale: range of the factor by which an image is resized before it is cropped; (1, 1): not at all. An image that
        would come out smaller than the crop is resized to the crop.
    """

    SIZES = ("crop", "shorter_side")
    inputs: str | None = None
    shorter_side: int | None = None
    crop: int = 128
    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"recipe: expected data.crop >= 1 and data.scale > 0, got {self.crop} and {self.scale}")
        if not 1e-3 <= self.scale[0] <= self.scale[1] <= self.crop:
            raise InputError(f"recipe: expected data.scale from 0.001 to data.crop={self.crop}, got {list(self.scale)}")
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"recipe: expected data.shorter_side of at least 1, got {self.shorter_side}")

    def values(self, channels: int, sample_rate: int | None) -> float:
        return float(channels) * max(self.crop, self.shorter_side or 0) ** 2


@dataclass(frozen=True, kw_only=True)
class AudioData(ReadingOptions):
    """How training audio is cut; `ReadingOptions` has the other fields.

    seconds: length of a crop; a shorter file is repeated end to end.
    bucket: number of files, drawn at random, that are put in the order of their sizes in bytes; a batch is then as long
        as its shortest file, if that is shorter than `seconds`. None: batches of any files, all `seconds` long.
    min_seconds: least length of a crop with `bucket`; a shorter file is repeated.
    peak_db: range in dB of full scale to which a file's peak is set; validation takes the middle.
    """

    SIZES = ("seconds",)
    seconds: float = 1.0
    bucket: int | None = None
    min_seconds: float = 0.25
    peak_db: tuple[float, float] = (-6.0, -1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.seconds > 0 and self.min_seconds > 0):
            raise InputError(
                f"recipe: expected data.seconds and data.min_seconds > 0, got {self.seconds} and {self.min_seconds}"
            )
        if not QUIETEST_DB <= self.peak_db[0] <= self.peak_db[1] <= 0:
            raise InputError(
                f"recipe: expected data.peak_db as rising levels from {QUIETEST_DB:g} to 0, got {list(self.peak_db)}"
            )
        if self.bucket is not None and self.bucket < 1:
            raise InputError(f"recipe: expected data.bucket of at least 1, got {self.bucket}")

    def values(self, channels: int, sample_rate: int | None) -> float:
        seconds = min(self.seconds, self.min_seconds) if self.bucket else self.seconds
        return channels * seconds * (sample_rate or 1)


@dataclass(frozen=True, kw_only=True)
class VideoData(ReadingOptions):
    """How training clips are cut; `ReadingOptions` has the other fields.

    frames: frames of a clip; the last frame of a shorter file is repeated.
    frame_stride: frame step; 2 takes every second frame of a file.
    crop: height and width in pixels; smaller frames are resized to it.
    flip: whether each clip is mirrored with a probability of one half.
    stills: whether images in the data become clips too: a camera moves over the image at constant speed, and zooms in
        or out, at random.
    max_frames: frames of a file that are read, from its start; later frames are not used.
    """

    SIZES = ("frames", "crop")
    frames: int = 17
    frame_stride: int = 1
    crop: int = 128
    flip: bool = True
    stills: bool = False
    max_frames: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("frames", "frame_stride", "crop", "max_frames"):
            if getattr(self, key) < 1:
                raise InputError(f"recipe: expected data.{key} of at least 1, got {getattr(self, key)}")
        if self.frame_stride > MOST_STRIDE:
            raise InputError(f"recipe: expected data.frame_stride of at most {MOST_STRIDE}, got {self.frame_stride}")

    def values(self, channels: int, sample_rate: int | None) -> float:
        return float(channels) * self.frames * self.crop**2


@dataclass(frozen=True, kw_only=True)
class StructureData(ReadingOptions):
    """How training structures are cut; `ReadingOptions` has the other fields.

    max_residues: longest stretch of a chain. Longer chains are cut at a random place; shorter ones stay whole and are
        padded with absent residues to the longest of their batch.
    bucket: number of chains, drawn at random, that are put in the order of their files' sizes, so that the chains of a
        batch have similar lengths; 1: batches of any lengths.
    bend: chains are bent at random, so that few of them teach more folds than they have: each phi and psi changes by
        a normal angle, whose standard deviation is drawn for each stretch, mostly near 0 and at most this many
        degrees. Bond lengths and angles stay; atoms may collide. 0: chains stay as they are.
    """

    max_residues: int = 256
    bucket: int = 64
    bend: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_residues < 1 or self.bucket < 1:
            raise InputError(
                f"recipe: expected data.max_residues and data.bucket >= 1, got {self.max_residues} and {self.bucket}"
            )
        if not 0 <= self.bend <= 180:
            raise InputError(f"recipe: expected data.bend from 0 to 180 degrees, got {self.bend}")


DataOptions = ImageData | AudioData | VideoData | StructureData
VisualData = ImageData | VideoData  # whose signals are pixels in [0, 1]
DATA_OPTIONS: dict[str, type[DataOptions]] = {
    "image": ImageData,
    "audio": AudioData,
    "video": VideoData,
    "structure": StructureData,
}
