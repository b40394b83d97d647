"""Folders of images or audio to training crops, in an order that the seed and the sample's number alone decide.

Sample n of a run is the same whatever came before it, so that a resumed run goes on with the next number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.errors import MediaError, ZooError
from zoo.media import center_crop, load_audio, media_files, read_image
from zoo.tokenizer import TokenizerSpec
from zoo.trainers.recipe import AudioData, ImageData, Recipe


class Files:
    """The signals of a folder (of its `first` files) in the order of their paths, decoded once and kept while they fit.

    A file that cannot be read is named on stderr when it is met, counted in `damaged`, and its place is taken by
    the next.
    """

    def __init__(self, folder: str | Path, spec: TokenizerSpec, cache_gib: float, first: int | None = None):
        self.spec = spec
        self.paths = media_files(folder, spec.modality)[:first]
        self.damaged: set[Path] = set()
        self._cache: dict[Path, Tensor] = {}
        left = cache_gib * 2**30
        for path in self.paths:
            signal = self._read(path)
            if signal is not None:
                left -= signal.nbytes
                if left < 0:
                    break
                self._cache[path] = signal
        if self.damaged:
            print(f"{folder}: {len(self.damaged)} of {len(self.paths)} files skipped", file=sys.stderr)
        if len(self.damaged) == len(self.paths):
            raise MediaError(f"{folder}: none of the {len(self.paths)} {spec.modality} files can be read")

    @property
    def all_in_memory(self) -> bool:
        return len(self._cache) + len(self.damaged) == len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Image uint8 `[3, H, W]`; audio int16 `[channels, samples]` whose peak is full scale."""
        for offset in range(len(self.paths)):
            path = self.paths[(index + offset) % len(self.paths)]
            if path in self._cache:
                return self._cache[path]
            signal = None if path in self.damaged else self._read(path)
            if signal is not None:
                return signal
        raise MediaError(f"none of the {len(self.paths)} {self.spec.modality} files can be read any more")

    def _read(self, path: Path) -> Tensor | None:
        try:
            if self.spec.modality == "image":
                return read_image(path)
            audio = load_audio(path, self.spec.sample_rate, self.spec.channels)
            return (audio / audio.abs().max().clamp(min=1e-4) * 32767).round().to(torch.int16)
        except ZooError as error:
            self.damaged.add(path)
            print(f"skipped {error}", file=sys.stderr)
            return None


class Crops(Dataset):
    """Training crops by sample number: image uint8 `[3, crop, crop]`, audio float32 `[channels, samples]`."""

    def __init__(self, files: Files, options: ImageData | AudioData, seed: int):
        self.files, self.options, self.seed = files, options, seed
        self._epoch, self._order = -1, np.empty(0)

    def __getitem__(self, number: int) -> Tensor:
        epoch, position = divmod(number, len(self.files))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.files))
        signal = self.files[int(self._order[position])]
        random = np.random.default_rng((self.seed, epoch, position))
        if isinstance(self.options, ImageData):
            return crop_image(signal, self.options, random)
        return crop_audio(signal, self.options, self.files.spec.sample_rate, random)


def crop_image(image: Tensor, options: ImageData, random: np.random.Generator) -> Tensor:
    """uint8 `[3, H, W]` to a random `[3, crop, crop]`."""
    low, high = options.scale
    # The part that a crop of the resized picture shows is cut out first, then resized.
    side = min(round(options.crop / random.uniform(low, high)), *image.shape[1:])
    top, left = (int(random.integers(length - side + 1)) for length in image.shape[1:])
    part = image[:, top : top + side, left : left + side]
    if options.flip and random.random() < 0.5:
        part = part.flip(2)
    return resize_square(part, options.crop)


def crop_audio(audio: Tensor, options: AudioData, sample_rate: int, random: np.random.Generator) -> Tensor:
    """int16 `[channels, samples]` to a random float32 crop of `options.seconds`."""
    length = round(options.seconds * sample_rate)
    peak = 10 ** (random.uniform(*options.peak_db) / 20)
    audio = repeated(audio, length)
    start = int(random.integers(audio.shape[1] - length + 1))
    return audio[:, start : start + length].float() * (peak / 32767)


class Excerpts(Dataset):
    """A fixed part of each file: centre crops of images, the first seconds of audio; as `Crops`."""

    def __init__(self, files: Files, options: ImageData | AudioData):
        self.files, self.options = files, options

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        signal = self.files[index]
        if isinstance(self.options, ImageData):
            side = min(self.options.crop, *signal.shape[1:])
            return resize_square(center_crop(signal, side), self.options.crop)
        length = round(self.options.seconds * self.files.spec.sample_rate)
        peak = 10 ** (sum(self.options.peak_db) / 40)
        return repeated(signal, length)[:, :length].float() * (peak / 32767)


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
        pin_memory=torch.cuda.is_available(),
    )


def to_signal(batch: Tensor) -> Tensor:
    """A batch of crops in the public layout and range: bytes become [0, 1]."""
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch


def repeated(audio: Tensor, length: int) -> Tensor:
    """`[channels, samples]` end to end until there are at least `length` samples."""
    return audio.repeat(1, -(-length // audio.shape[1])) if audio.shape[1] < length else audio


def resize_square(image: Tensor, side: int) -> Tensor:
    """uint8 `[3, H, H]` to `[3, side, side]`, with antialiasing."""
    if image.shape[1] == side:
        return image.contiguous()
    return F.interpolate(image[None], (side, side), mode="bilinear", antialias=True, align_corners=False)[0]
