"""Media files decoded to signals, and kept in memory while they fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from zoo import modalities
from zoo.errors import InputError, MediaError, ZooError
from zoo.media import (
    MediaBytes,
    center_crop,
    load_audio,
    read_image,
    read_structure,
    read_video,
    resize_short_side,
)
from zoo.sources.files import open_files
from zoo.sources.locations import Location, MediaFolder, locate
from zoo.spec import TokenizerSpec
from zoo.trainers.data.options import DataOptions, ImageData, StructureData, VideoData


class Signals:
    """The decoded signals of media files, in the order of the files, kept in memory while they fit.

    A file that cannot be read or has no values that can be encoded is reported on stderr and skipped, whatever error
    it causes: its number is added to `damaged`, and the next file takes its place.

    Args:
        data: what `zoo.sources.locations.locate` takes or returns.
        spec: spec of the tokenizer that is trained.
        options: how the data are read; an options class of the spec's modality.
        first: number of files that are used, from the start; None: all.

    Raises:
        InputError: as in `locate` and `zoo.sources.files.open_files`.
        MediaError: there is no file, or none that can be read.
    """

    def __init__(
        self, data: str | Path | Location, spec: TokenizerSpec, options: DataOptions, first: int | None = None
    ):
        self.spec, self.options = spec, options
        stills = ("image",) if isinstance(options, VideoData) and options.stills else ()
        location = locate(data) if isinstance(data, str | Path) else data
        self.files = open_files(location, (spec.modality, *stills), first)
        self.damaged: set[int] = set()
        self._cache: dict[int, Tensor] = {}
        left = options.cache_gib * 2**30
        for index in range(len(self)):
            signal = self._read(index)
            if signal is not None:
                left -= signal.nbytes
                if left < 0:
                    break
                self._cache[index] = signal
        if self.damaged:
            print(f"{location}: {len(self.damaged)} of {len(self)} files skipped", file=sys.stderr)
        if len(self.damaged) == len(self):
            raise MediaError(f"{location}: none of the {len(self)} {spec.modality} files can be read")

    @property
    def all_in_memory(self) -> bool:
        """Whether no file has to be read again."""
        return len(self._cache) + len(self.damaged) == len(self)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def sizes(self) -> np.ndarray:
        """Size of each file in bytes: a measure of its length without reading it."""
        return self.files.sizes

    def __getitem__(self, index: int) -> Tensor:
        """The signal of the file with this number, or of the next one that can be read.

        Image: uint8 `[3, H, W]`. Audio: int16 `[channels, samples]`, its peak at full scale. Video: uint8
        `[3, T, H, W]`. Structure: float32 `[residues, 5, 3]` in angstrom.

        Raises:
            MediaError: no file can be read any more.
        """
        for offset in range(len(self)):
            place = (index + offset) % len(self)
            if place in self._cache:
                return self._cache[place]
            signal = None if place in self.damaged else self._read(place)
            if signal is not None:
                return signal
        raise MediaError(f"none of the {len(self)} {self.spec.modality} files can be read any more")

    def _read(self, index: int) -> Tensor | None:
        name = f"file {index}"
        try:
            modality, file = self.files.open(index)
            name = str(file)
            signal = self._decode(modality, file)
            if signal.numel() == 0:
                raise MediaError(f"{file}: holds no values")
            return signal
        except Exception as error:  # of the libraries that decode as well: one file must not end a run
            reason = " ".join(str(error).split()) or "no reason given"
            if not isinstance(error, ZooError):
                reason = f"{type(error).__name__}: {reason}"
            if not isinstance(error, MediaError):
                reason = f"{name}: {reason}"
            self.damaged.add(index)
            print(f"skipped {reason} ({len(self.damaged)} so far)", file=sys.stderr)
            return None

    def _decode(self, modality: str, file: Path | MediaBytes) -> Tensor:
        options = self.options
        if isinstance(options, ImageData):
            image = read_image(file)
            return image if options.shorter_side is None else resize_short_side(image, options.shorter_side)
        if isinstance(options, VideoData):
            is_clip = modality == self.spec.modality
            return read_clip(file, options.max_frames) if is_clip else read_image(file)[:, None]
        known = modalities.get(modality)
        if isinstance(options, StructureData):
            structure = read_structure(file).coordinates
            known.check_values(structure[None])
            return structure
        assert self.spec.sample_rate is not None
        audio = load_audio(file, self.spec.sample_rate, self.spec.channels)
        known.check_values(audio[None])
        return (audio / audio.abs().max().clamp(min=1e-4) * 32767).round().to(torch.int16)


class Pairs(Signals):
    """The images of `options.inputs`, each with its original in front: uint8 `[6, H, W]`.

    An original has its input's path in `data`, apart from the suffix. Both have their shorter sides resized; then the
    original is cropped to the input's size, at the centre. An input without an original is reported and skipped like a
    damaged file.

    Raises:
        InputError: `data` or the inputs are not a folder of files.
        MediaError: no input can be read.
    """

    def __init__(self, data: str | Path | Location, spec: TokenizerSpec, options: ImageData):
        assert options.inputs is not None
        originals, inputs = (
            locate(place) if isinstance(place, str | Path) else place for place in (data, options.inputs)
        )
        match originals, inputs:
            case MediaFolder(Path() as folder), MediaFolder(Path() as inputs_folder):
                self.originals, self.inputs = folder, inputs_folder
            case _:
                got = f"{data} and {options.inputs}"
                raise InputError(f"recipe: data.inputs takes folders of files, of originals and of inputs, got {got}")
        super().__init__(inputs, spec, options)

    def _decode(self, modality: str, file: Path | MediaBytes) -> Tensor:
        assert isinstance(file, Path)  # the inputs are a folder of files
        place = self.originals / file.relative_to(self.inputs)
        suffixes = modalities.get(modality).suffixes
        found = [path for suffix in suffixes if (path := place.with_suffix(suffix)).is_file()]
        if not found:
            raise MediaError(f"{file}: {place.with_suffix('')} is not an image file, with any suffix")
        given, original = super()._decode(modality, file), super()._decode(modality, found[0])
        return torch.cat([center_crop(original, (given.shape[1], given.shape[2])), given])


def read_clip(path: Path | MediaBytes, frames: int) -> Tensor:
    """The first `frames` frames of a video file, or as many as there are: uint8 `[3, T, H, W]`."""
    for window, _ in read_video(path, frames):
        return window
    raise MediaError(f"{path}: holds no frame")


def training_signals(location: Location, spec: TokenizerSpec, options: DataOptions) -> Signals:
    """`Pairs` if the recipe asks for them, else `Signals`."""
    return Pairs(location, spec, options) if is_paired(options) else Signals(location, spec, options)


def is_paired(options: DataOptions) -> TypeGuard[ImageData]:
    """Whether a crop has two images: the original in the first three channels, the tokenizer's input in the others."""
    return isinstance(options, ImageData) and options.inputs is not None
