"""The candidates' input, preprocessed in the same way for all, and lossless files of their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import media, modalities
from zoo.errors import InputError
from zoo.modalities import Modality, Signal
from zoo.spec import TokenizerSpec


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The form that files are brought to before a candidate sees them, the same for all candidates.

    Attributes:
        modality: name of the files' modality.
        resolution: side in pixels of the square that images and video are resized and cropped to; None: as the file
            has it.
        sample_rate, channels: rate and channels that audio is resampled and mixed to.
        seconds: length of audio and video that is taken from the start; None: all.
    """

    modality: str
    resolution: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, specs: Sequence[TokenizerSpec], *, resolution: int | None, seconds: float | None) -> Preprocessing:
        """Choose what suits all variants: the only size that some take, the highest sample rate, the fewest channels.

        Args:
            specs: of at least one variant.
            resolution, seconds: as above.

        Raises:
            InputError: variants of several modalities or fixed sizes, one of several tracks, or an option that they do
                not take.
        """
        first = specs[0]
        if several := next((spec for spec in specs if spec.tracks > 1), None):
            raise InputError(
                f"{several.name} takes {several.tracks} tracks apart and decodes their mix; recordings to compare with "
                "others are not in tracks"
            )
        if other := next((spec for spec in specs if spec.modality != first.modality), None):
            raise InputError(
                f"{first.name} is for {first.modality}, {other.name} for {other.modality}; compare them separately"
            )
        kind = modalities.get(first.modality)
        for name, value in (("resolution", resolution), ("seconds", seconds)):
            if value is not None and name not in kind.options:
                raise InputError(f"{name} does not apply to {kind.noun[1]}, got {value}")
        if seconds is not None and not seconds > 0:
            raise InputError(f"expected more than 0 seconds, got {seconds}")
        rates = [spec.sample_rate for spec in specs if spec.sample_rate is not None]
        return cls(
            modality=first.modality,
            resolution=common_resolution(specs, resolution),
            sample_rate=max(rates, default=None),
            channels=min(spec.channels for spec in specs) if rates else None,
            seconds=seconds,
        )

    @property
    def kind(self) -> Modality:
        """The modality's object."""
        return modalities.get(self.modality)

    @cached_property
    def spec(self) -> TokenizerSpec:
        """A spec that describes the preprocessed signals, as the modality and the metrics take one."""
        return TokenizerSpec(
            modality=self.modality,
            quantizer="none",
            codebook_sizes=(),
            downsample=(1,) * len(self.kind.axes),
            channels=self.channels or 3,
            sample_rate=self.sample_rate,
            code_license="",
            weights_license="",
            paper="",
            source="",
        )

    def load(self, path: Path) -> Signal:
        """Read a file; MediaError or InputError as the modality's `load` raises them."""
        given = {"resolution": self.resolution, "seconds": self.seconds}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return self.kind.load(path, self.spec, **options)

    def size(self, values: Tensor) -> tuple[int, ...]:
        """Return the size of a batch as `Tokenizer.decode` takes it."""
        return self.kind.size_of(values)

    def amount(self, signal: Signal) -> float:
        """Return how much signal there is: pixels of an image, seconds of audio or video, or residues."""
        return self.kind.amount(self.size(signal.values[None]), self.sample_rate or signal.frame_rate)

    def rate(self, num_bytes: float, amount: float) -> float:
        """Convert bytes for an `amount` of signal to the modality's `rate_unit`."""
        return 8 * num_bytes / amount * self.kind.rate_scale

    def speed(self, amount: float, seconds: float) -> float:
        """Convert an `amount` of signal in `seconds` to the modality's `speed_unit`."""
        return amount / max(seconds, 1e-9) * self.kind.speed_scale

    def write(self, path: Path, signal: Signal) -> None:
        """Write a file that is lossless except for rounding to 8 bits per colour or 16 bits per sample."""
        self.kind.write_lossless(path, signal, self.spec)

    def read(self, path: Path, like: Signal) -> Tensor:
        """Read what `write` wrote, without batch axis, in the size of the signal `like`."""
        return self.kind.read_lossless(path, like.values, self.spec)

    def to_tokenizer(self, values: Tensor, spec: TokenizerSpec) -> Tensor:
        """Convert a batch to the sample rate and the channels of a tokenizer, where it has a rate."""
        if self.sample_rate is None or spec.sample_rate is None:
            return values
        return media.to_channels(media.resample(values, self.sample_rate, spec.sample_rate), spec.channels)

    def from_tokenizer(self, values: Tensor, spec: TokenizerSpec, size: tuple[int, ...]) -> Tensor:
        """Convert a decoded batch to the sample rate and the channels that candidates are compared at."""
        if self.sample_rate is None or self.channels is None or spec.sample_rate is None:
            return values
        mixed = media.to_channels(values, self.channels)
        return media.resample(mixed, spec.sample_rate, self.sample_rate)[..., : size[0]]


def common_resolution(specs: Sequence[TokenizerSpec], resolution: int | None) -> int | None:
    """Return the side of the squares that all variants take; `resolution` where they take any size.

    Raises:
        InputError: variants of different sizes, or a `resolution` that is not theirs.
    """
    if resolution is not None and resolution < 1:
        raise InputError(f"expected a resolution of at least 1 pixel, got {resolution}")
    sizes = {spec.resolution: spec.name for spec in specs if spec.resolution is not None and not spec.variable_size}
    if len(sizes) > 1:
        taken = ", ".join(f"{name} {height}x{width}" for (height, width), name in sizes.items())
        raise InputError(f"these variants take different sizes ({taken}); compare them separately")
    for (height, width), name in sizes.items():
        if height != width or resolution not in (None, height):
            raise InputError(f"{name} takes {height}x{width}, got resolution {resolution}")
        resolution = height
    return resolution
