"""Folders of files to training crops, in an order that the seed and the sample's number alone decide.

Sample n of a run is the same whatever came before it, so that a resumed run goes on with the next number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.errors import MediaError, ZooError
from zoo.media import load_audio, media_files, read_image, read_structure, read_video
from zoo.tokenizer import TokenizerSpec
from zoo.trainers.crops import crop, excerpt
from zoo.trainers.recipe import DataOptions, Recipe, StructureData, VideoData


class Files:
    """The signals of a folder (of its `first` files) in the order of their paths, decoded once and kept while they fit.

    A file that cannot be read is named on stderr when it is met, counted in `damaged`, and its place is taken by
    the next. Of a video file no more than `max_frames` frames are read.
    """

    def __init__(
        self,
        folder: str | Path,
        spec: TokenizerSpec,
        cache_gib: float,
        first: int | None = None,
        max_frames: int = 256,
    ):
        self.spec, self.max_frames = spec, max_frames
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

    def sizes(self) -> np.ndarray:
        """Bytes of each file: a measure of length that takes no reading."""
        return np.array([path.stat().st_size for path in self.paths])

    def __getitem__(self, index: int) -> Tensor:
        """Image uint8 `[3, H, W]`; audio int16 `[channels, samples]` whose peak is full scale; video uint8
        `[3, T, H, W]`; structure float32 `[residues, 5, 3]`.
        """
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
            if self.spec.modality == "video":
                return read_clip(path, self.max_frames)
            if self.spec.modality == "structure":
                return read_structure(path).coordinates
            audio = load_audio(path, self.spec.sample_rate, self.spec.channels)
            return (audio / audio.abs().max().clamp(min=1e-4) * 32767).round().to(torch.int16)
        except ZooError as error:
            self.damaged.add(path)
            print(f"skipped {error}", file=sys.stderr)
            return None


def open_files(folder: str | Path, spec: TokenizerSpec, options: DataOptions, first: int | None = None) -> Files:
    """The files of a folder as a recipe's `data` says."""
    if isinstance(options, VideoData):
        return Files(folder, spec, options.cache_gib, first, options.max_frames)
    return Files(folder, spec, options.cache_gib, first)


class Crops(Dataset):
    """Training crops by sample number.

    Image uint8 `[3, crop, crop]`, audio float32 `[channels, samples]`, video uint8 `[3, frames, crop, crop]`, structure
    float32 `[residues, 5, 3]`.
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
        if isinstance(self.options, StructureData):
            return bucketed(order, self.files.sizes(), self.options.bucket)
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
        collate_fn=padded if isinstance(recipe.data, StructureData) else None,
        pin_memory=torch.cuda.is_available(),
    )


def validation_batches(excerpts: Excerpts, recipe: Recipe) -> DataLoader:
    """Batches of excerpts; structures, which differ in length, one by one."""
    return DataLoader(excerpts, 1 if isinstance(recipe.data, StructureData) else recipe.batch_size)


def padded(structures: list[Tensor]) -> Tensor:
    """`[residues, 5, 3]` each to `[B, residues, 5, 3]`, absent residues behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(structures, batch_first=True, padding_value=torch.nan)


def read_clip(path: Path, frames: int) -> Tensor:
    """The first frames of a video file, uint8 `[3, T, H, W]`."""
    for window, _ in read_video(path, frames):
        return window
    raise MediaError(f"{path}: holds no frame")


def to_signal(batch: Tensor) -> Tensor:
    """A batch of crops in the public layout and range: bytes become [0, 1]."""
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch
