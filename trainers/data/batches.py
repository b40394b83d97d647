"""Crops of signals in batches, in an order that depends on the seed and the sample's number alone.

Sample n of a run is the same whatever came before it, so a resumed run continues with the next number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.trainers.data.crops import crop, excerpt
from zoo.trainers.data.options import AudioData, DataOptions, StructureData
from zoo.trainers.data.signals import Signals
from zoo.trainers.recipe import Recipe


class Crops(Dataset):
    """Training crops by sample number.

    Image: uint8 `[3, crop, crop]`, of `Pairs` `[6, crop, crop]`. Audio: float32 `[channels, samples]`. Video: uint8
    `[3, frames, crop, crop]`. Structure: float32 `[residues, 5, 3]` in angstrom.
    """

    def __init__(self, signals: Signals, options: DataOptions, seed: int):
        self.signals, self.options, self.seed = signals, options, seed
        self._epoch, self._order = -1, np.empty(0)

    def __getitem__(self, number: int) -> Tensor:
        epoch, position = divmod(number, len(self.signals))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        signal = self.signals[int(self._order[position])]
        return crop(signal, self.options, self.signals.spec, np.random.default_rng((self.seed, epoch, position)))

    def _permutation(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.signals))
        if isinstance(self.options, StructureData | AudioData) and self.options.bucket:
            return bucketed(order, self.signals.sizes, self.options.bucket)
        return order


def bucketed(order: np.ndarray, sizes: np.ndarray, bucket: int) -> np.ndarray:
    """`order` with each run of `bucket` entries sorted by size: ascending, descending, ascending and so on."""
    parts = [order[start : start + bucket] for start in range(0, len(order), bucket)]
    ascending = [part[np.argsort(sizes[part], kind="stable")] for part in parts]
    return np.concatenate([part[:: -1 if number % 2 else 1] for number, part in enumerate(ascending)])


class Excerpts(Dataset):
    """A fixed part of each signal, in the form of `Crops`."""

    def __init__(self, signals: Signals, options: DataOptions):
        self.signals, self.options = signals, options

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index: int) -> Tensor:
        return excerpt(self.signals[index], self.options, self.signals.spec)


class Numbers(Sampler):
    """The sample numbers of one rank from a step to the last, one forward pass after another."""

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
    """Batches of `crops` for one rank's forward passes, from `step` to the recipe's last step."""
    workers = recipe.data.workers
    if workers is None:
        workers = 0 if crops.signals.all_in_memory else min(2, os.cpu_count() or 1)
    return DataLoader(
        crops,
        batch_size=recipe.batch_size,
        sampler=Numbers(recipe, step, rank, world_size),
        num_workers=workers,
        collate_fn=batching(recipe.data),
        pin_memory=torch.cuda.is_available(),
    )


def validation_batches(excerpts: Excerpts, recipe: Recipe) -> DataLoader:
    """Batches of excerpts; structures, which differ in length, come one by one."""
    return DataLoader(excerpts, 1 if isinstance(recipe.data, StructureData) else recipe.batch_size)


def batching(options: DataOptions) -> Callable[[list[Tensor]], Tensor] | None:
    """The function that makes a batch of crops which differ in length; None: all crops have the same length."""
    if isinstance(options, StructureData):
        return padded
    return shortened if isinstance(options, AudioData) and options.bucket else None


def shortened(sounds: list[Tensor]) -> Tensor:
    """A batch `[B, channels, samples]` of sounds `[channels, samples]`, each cut to the length of the shortest."""
    length = min(sound.shape[1] for sound in sounds)
    return torch.stack([sound[:, :length] for sound in sounds])


def padded(structures: list[Tensor]) -> Tensor:
    """A batch `[B, residues, 5, 3]` of structures `[residues, 5, 3]`, the shorter ones followed by absent residues."""
    return torch.nn.utils.rnn.pad_sequence(structures, batch_first=True, padding_value=torch.nan)


def to_signal(batch: Tensor) -> Tensor:
    """A batch of crops in the public layout and range: bytes become [0, 1]."""
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch
