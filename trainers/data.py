"""Media files to training crops, in an order that the seed and the sample's number alone decide.

Sample n of a run is the same whatever came before it, so that a resumed run goes on with the next number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.errors import InputError, MediaError, ZooError
from zoo.media import (
    SUFFIXES,
    MediaBytes,
    center_crop,
    load_audio,
    read_image,
    read_structure,
    read_video,
    resize_short_side,
)
from zoo.spec import TokenizerSpec
from zoo.trainers.crops import crop, excerpt
from zoo.trainers.recipe import AudioData, DataOptions, ImageData, Recipe, StructureData, VideoData
from zoo.trainers.sources import Location, locate, open_source


class Files:
    """The signals of media files (of the `first`) in their source's order, decoded once and kept while they fit.

    data: what `zoo.trainers.sources.locate` takes or gives. A file that cannot be read is named on stderr when it is
    met, its number is kept in `damaged`, and its place is taken by the next.
    """

    def __init__(
        self, data: str | Path | Location, spec: TokenizerSpec, options: DataOptions, first: int | None = None
    ):
        self.spec, self.options = spec, options
        stills = ("image",) if isinstance(options, VideoData) and options.stills else ()
        location = locate(data) if isinstance(data, str | Path) else data
        self.source = open_source(location, (spec.modality, *stills), first)
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
        name = f"{location[0]}, ..." if isinstance(location, tuple) else location
        if self.damaged:
            print(f"{name}: {len(self.damaged)} of {len(self)} files skipped", file=sys.stderr)
        if len(self.damaged) == len(self):
            raise MediaError(f"{name}: none of the {len(self)} {spec.modality} files can be read")

    @property
    def all_in_memory(self) -> bool:
        return len(self._cache) + len(self.damaged) == len(self)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each file: a measure of length that takes no reading."""
        return self.source.sizes

    def __getitem__(self, index: int) -> Tensor:
        """Image uint8 `[3, H, W]`; audio int16 `[channels, samples]` whose peak is full scale; video uint8
        `[3, T, H, W]`; structure float32 `[residues, 5, 3]`.
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
        try:
            return self._decode(*self.source.open(index))
        except ZooError as error:
            self.damaged.add(index)
            print(f"skipped {error} ({len(self.damaged)} so far)", file=sys.stderr)
            return None

    def _decode(self, held: str, file: Path | MediaBytes) -> Tensor:
        if self.spec.modality == "image":
            side = self.options.shorter_side
            return read_image(file) if side is None else resize_short_side(read_image(file), side)
        if self.spec.modality == "video":
            return read_image(file)[:, None] if held == "image" else read_clip(file, self.options.max_frames)
        if self.spec.modality == "structure":
            return read_structure(file).coordinates
        audio = load_audio(file, self.spec.sample_rate, self.spec.channels)
        return (audio / audio.abs().max().clamp(min=1e-4) * 32767).round().to(torch.int16)


class Pairs(Files):
    """The pictures of `options.inputs`, and in front of each its original: uint8 `[6, H, W]`.

    An original has its input's path in `data`, but for the suffix, and is cut to its size, at the centre, after both
    have had their shorter sides resized. An input without such an original counts as damaged.

    Raises:
        InputError: `data` or the inputs are no folder of files.
        MediaError: no input can be read.
    """

    def __init__(self, data: str | Path | Location, spec: TokenizerSpec, options: ImageData):
        places = [locate(place) if isinstance(place, str | Path) else place for place in (data, options.inputs)]
        self.originals, self.inputs = places
        if not all(isinstance(place, Path) for place in places):
            got = f"{data} and {options.inputs}"
            raise InputError(f"recipe: data.inputs takes folders of files, of originals and of inputs, got {got}")
        super().__init__(self.inputs, spec, options)

    def _decode(self, held: str, file: Path | MediaBytes) -> Tensor:
        place = self.originals / file.relative_to(self.inputs)
        found = [path for suffix in SUFFIXES["image"] if (path := place.with_suffix(suffix)).is_file()]
        if not found:
            raise MediaError(f"{file}: {place.with_suffix('')} is no picture, with any suffix")
        given, original = super()._decode(held, file), super()._decode(held, found[0])
        return torch.cat([center_crop(original, given.shape[1:]), given])


class Crops(Dataset):
    """Training crops by sample number.

    Image uint8 `[3, crop, crop]`, of `Pairs` `[6, crop, crop]`; audio float32 `[channels, samples]`; video uint8
    `[3, frames, crop, crop]`; structure float32 `[residues, 5, 3]`.
    """

    def __init__(self, files: Files, options: DataOptions, seed: int):
        self.files, self.options, self.seed = files, options, seed
        self._epoch, self._order = -1, np.empty(0)

    def __getitem__(self, number: int) -> Tensor:
        epoch, position = divmod(number, len(self.files))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        signal = self.files[int(self._order[position])]
        return crop(signal, self.options, self.files.spec, np.random.default_rng((self.seed, epoch, position)))

    def _permutation(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.files))
        if isinstance(self.options, StructureData | AudioData) and self.options.bucket:
            return bucketed(order, self.files.sizes, self.options.bucket)
        return order


def bucketed(order: np.ndarray, sizes: np.ndarray, bucket: int) -> np.ndarray:
    """`order`, of which each `bucket` entries in turn are sorted by size: upwards, downwards, upwards and so on."""
    parts = [order[start : start + bucket] for start in range(0, len(order), bucket)]
    ascending = [part[np.argsort(sizes[part], kind="stable")] for part in parts]
    return np.concatenate([part[:: -1 if number % 2 else 1] for number, part in enumerate(ascending)])


class Excerpts(Dataset):
    """A fixed part of each file, as `Crops`."""

    def __init__(self, files: Files, options: DataOptions):
        self.files, self.options = files, options

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return excerpt(self.files[index], self.options, self.files.spec)


class Numbers(Sampler):
    """The sample numbers of one rank from a step to the last, a pass after another."""

    def __init__(self, recipe: Recipe, step: int, rank: int, world_size: int):
        self.batch_size = recipe.batch_size
        self.passes = range(step * recipe.accumulate, recipe.steps * recipe.accumulate)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return len(self.passes) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for number in self.passes:
            first = (number * self.world_size + self.rank) * self.batch_size
            yield from range(first, first + self.batch_size)


def training_batches(crops: Crops, recipe: Recipe, step: int, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Batches of `crops` for the forward passes from `step` to the recipe's last."""
    workers = recipe.data.workers
    if workers is None:
        workers = 0 if crops.files.all_in_memory else min(2, os.cpu_count() or 1)
    return DataLoader(
        crops,
        batch_size=recipe.batch_size,
        sampler=Numbers(recipe, step, rank, world_size),
        num_workers=workers,
        collate_fn=batching(recipe.data),
        pin_memory=torch.cuda.is_available(),
    )


def validation_batches(excerpts: Excerpts, recipe: Recipe) -> DataLoader:
    """Batches of excerpts; structures, which differ in length, one by one."""
    return DataLoader(excerpts, 1 if isinstance(recipe.data, StructureData) else recipe.batch_size)


def batching(options: DataOptions) -> Callable[[list[Tensor]], Tensor] | None:
    """How crops that differ in length become a batch; None: as the loader does it."""
    if isinstance(options, StructureData):
        return padded
    return shortened if isinstance(options, AudioData) and options.bucket else None


def shortened(sounds: list[Tensor]) -> Tensor:
    """`[channels, samples]` each to `[B, channels, samples]`, as long as the shortest."""
    length = min(sound.shape[1] for sound in sounds)
    return torch.stack([sound[:, :length] for sound in sounds])


def padded(structures: list[Tensor]) -> Tensor:
    """`[residues, 5, 3]` each to `[B, residues, 5, 3]`, absent residues behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(structures, batch_first=True, padding_value=torch.nan)


def read_clip(path: Path | MediaBytes, frames: int) -> Tensor:
    """The first frames of a video file, uint8 `[3, T, H, W]`."""
    for window, _ in read_video(path, frames):
        return window
    raise MediaError(f"{path}: holds no frame")


def training_files(location: Location, spec: TokenizerSpec, options: DataOptions) -> Files:
    """`Pairs` where the recipe asks for them, else `Files`."""
    return (Pairs if is_paired(options) else Files)(location, spec, options)


def is_paired(options: DataOptions) -> bool:
    """Whether what the tokenizer is given comes behind the original, as another three channels."""
    return isinstance(options, ImageData) and options.inputs is not None


def to_signal(batch: Tensor) -> Tensor:
    """A batch of crops in the public layout and range: bytes become [0, 1]."""
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch
