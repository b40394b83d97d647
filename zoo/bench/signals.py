"""The candidates' input, preprocessed in the same way for all, and lossless files of their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo import media, modalities
from zoo.errors import InputError
from zoo.modalities import Modality, Signal
from zoo.spec import TokenizerSpec

EXACT_SUFFIX = ".npy"
FRAMES = 16  # of video that are resized at once


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The form that files are brought to before a candidate sees them, the same for all candidates.

    Attributes:
        modality: name of the files' modality.
        resolution: side in pixels of the square that images and video are resized and cropped to; None: as the file
            has it.
        interpolation: how they are resized, as in `zoo.modalities.image.resize_short_side`.
        resized_as: whether bytes are resized, and rounded to bytes again, or floats.
        kept: how reconstructions of images and video become 8-bit colours before they are measured: "rounded" to the
            nearest or "truncated" to the next lower one; "unrounded": they are measured as the decoder returns them.
        sample_rate, channels: rate and channels that audio is resampled and mixed to.
        seconds: length of audio and video that is taken from the start; None: all.
        frames: length of the clips that video is cut into, each an item of its own, the last one filled up by
            repeating its last frame; None: files are not cut.
        frame_rate: video of a higher rate is thinned to every n-th frame, with n the nearest integer to the ratio of
            the rates; None: all frames.
        most_residues: structures with more are excluded; None: none are.
    """

    modality: str
    resolution: int | None = None
    interpolation: str = "bilinear"
    resized_as: Literal["bytes", "floats"] = "bytes"
    kept: Literal["rounded", "truncated", "unrounded"] = "rounded"
    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None
    frames: int | None = None
    frame_rate: float | None = None
    most_residues: int | None = None

    @classmethod
    def of(cls, specs: Sequence[TokenizerSpec], given: Mapping[str, Any]) -> Preprocessing:
        """Choose what suits all variants: the only size that some take, the highest sample rate, the fewest channels.

        Args:
            specs: of at least one variant.
            given: attributes that are settled, such as `resolution` and `seconds`; None counts as not given.

        Raises:
            InputError: variants of several modalities or fixed sizes, one of several tracks, audio of which no variant
                states a rate, or an option that they do not take.
        """
        first = specs[0]
        settings = {name: value for name, value in given.items() if value is not None}
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
        for name in ("resolution", "seconds"):
            if name in settings and name not in kind.options:
                raise InputError(f"{name} does not apply to {kind.noun[1]}, got {settings[name]}")
        if "seconds" in settings and not settings["seconds"] > 0:
            raise InputError(f"expected more than 0 seconds, got {settings['seconds']}")
        rates = [spec.sample_rate for spec in specs if spec.sample_rate is not None]
        if "sample_rate" in kind.options and not rates and "sample_rate" not in settings:
            raise InputError(f"{first.name} states no sample rate; a candidate for {kind.noun[1]} needs one")
        chosen = {
            "sample_rate": max(rates, default=None),
            "channels": min((spec.channels for spec in specs if spec.sample_rate is not None), default=None),
        }
        size = common_resolution(specs, settings.pop("resolution", None))
        return cls(modality=first.modality, resolution=size, **{**chosen, **settings})

    @property
    def kind(self) -> Modality:
        """The modality's object."""
        return modalities.get(self.modality)

    @cached_property
    def spec(self) -> TokenizerSpec:
        """A spec that describes the preprocessed signals, as the modality and the metrics take one."""
        return plain_spec(self.modality, sample_rate=self.sample_rate, channels=self.channels)

    @property
    def looks_at_files(self) -> bool:
        """Whether files have to be read before it is known which items they are."""
        return self.frames is not None or self.most_residues is not None

    def load(self, path: Path) -> Signal:
        """Read a file; MediaError or InputError as the modality's `load` raises them."""
        sized: dict[str, Any] = {}
        if self.resolution is not None:
            sized = {"resolution": self.resolution, "interpolation": self.interpolation}
        taken = {} if self.seconds is None else {"seconds": self.seconds}
        if self.resized_as == "bytes":
            return self.kind.load(path, self.spec, **sized, **taken)
        parts = [
            part._replace(values=self.kind.load(part.values, self.spec, **sized).values)
            for part in self.kind.stream(path, replace(self.spec, chunk_frames=FRAMES), **taken)
        ]
        return parts[0]._replace(values=torch.cat([part.values for part in parts], dim=1))

    def clips(self, signal: Signal) -> list[Signal]:
        """Cut video `[3, T, H, W]` into clips, as `frames` and `frame_rate` say."""
        assert self.frames is not None, "files are cut into clips"
        step = 1
        if self.frame_rate is not None and signal.frame_rate is not None:
            step = max(1, round(signal.frame_rate / self.frame_rate))
        rate = None if signal.frame_rate is None else signal.frame_rate / step
        clips = []
        for clip in signal.values[:, ::step].split(self.frames, dim=1):
            missing = self.frames - clip.shape[1]
            filled = torch.cat([clip, clip[:, -1:].expand(-1, missing, -1, -1)], dim=1)
            clips.append(signal._replace(values=filled, frame_rate=rate))
        return clips

    def exclusion(self, signal: Signal) -> str | None:
        """Return why a signal is excluded; None: it is not."""
        if self.most_residues is not None and len(signal.values) > self.most_residues:
            return f"{len(signal.values)} residues, more than {self.most_residues}"
        return None

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
        """Write a file that is lossless except for rounding to 8 bits per colour or 16 bits per sample.

        Where reconstructions are not rounded, a NumPy file of their values is written beside it.
        """
        if self.kept == "truncated":
            signal = signal._replace(values=(signal.values.clamp(0, 1) * 255).floor() / 255)
        if self.kept == "unrounded":
            np.save(path.with_suffix(EXACT_SUFFIX), signal.values.numpy())
        self.kind.write_lossless(path, signal, self.spec)

    def read(self, path: Path, like: Signal) -> Tensor:
        """Read what `write` wrote, without batch axis, in the size of the signal `like`."""
        if self.kept == "unrounded":
            return torch.from_numpy(np.load(path.with_suffix(EXACT_SUFFIX), allow_pickle=False))
        return self.kind.read_lossless(path, like.values, self.spec)

    def to_candidate(self, values: Tensor, sample_rate: int | None, channels: int) -> Tensor:
        """Convert a batch to a candidate's sample rate and channels, where it states a rate."""
        if self.sample_rate is None or sample_rate is None:
            return values
        return media.to_channels(media.resample(values, self.sample_rate, sample_rate), channels)

    def from_candidate(self, values: Tensor, sample_rate: int | None, size: tuple[int, ...]) -> Tensor:
        """Convert a restored batch to the sample rate and the channels that candidates are compared at."""
        if self.sample_rate is None or self.channels is None or sample_rate is None:
            return values
        mixed = media.to_channels(values, self.channels)
        return media.resample(mixed, sample_rate, self.sample_rate)[..., : size[0]]


def plain_spec(
    modality: str, *, name: str = "", sample_rate: int | None = None, channels: int | None = None
) -> TokenizerSpec:
    """Return a spec of signals alone, without codes, for the modality and the metrics; it takes any size."""
    return TokenizerSpec(
        name=name,
        modality=modality,
        quantizer="none",
        codebook_sizes=(),
        downsample=(1,) * len(modalities.get(modality).axes),
        channels=channels or 3,
        sample_rate=sample_rate,
        code_license="",
        weights_license="",
        paper="",
        source="",
    )


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
