"""Signals of equal size encoded together, and their codes in the order in which they came."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.corpus.reading import Piece
from zoo.modalities import Signal
from zoo.sources.items import Item

BATCHES_AHEAD = 4  # signals that wait for others of their size, in batches


@dataclass
class Encoded:
    """An item whose pieces are being encoded, or the error of one of them.

    codes: of the pieces, in their order; None for one that still waits. sizes: their sizes. is_read: whether the last
    piece was read.
    """

    item: Item
    codes: list[Tensor | None] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    frame_rate: float | None = None
    pixel_aspect: float | None = None
    is_read: bool = False
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.is_read and (self.error is not None or all(codes is not None for codes in self.codes))

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the whole signal: windows follow each other along the first axis."""
        return (sum(size[0] for size in self.sizes), *self.sizes[0][1:])


@dataclass(frozen=True)
class Waiting:
    """A signal that waits for others of its size. index: its place in the codes of `encoded`."""

    encoded: Encoded
    index: int
    signal: Tensor


class Batches:
    """Encodes the pieces of items in batches of equal size, so that every item has the codes that it has alone.

    Args:
        encode: returns the codes `[batch, num_codebooks, *grid]` of signals `[batch, ...]`.
        size_of: size of signals `[batch, ...]`, as `Tokenizer.size_of` returns it.
        most: samples, pixels or residues in a batch; a larger signal is a batch of its own.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], size_of: Callable[[Tensor], tuple[int, ...]], most: int):
        self._encode, self._size_of, self._most = encode, size_of, most
        self._waiting: dict[tuple[Any, ...], list[Waiting]] = {}

    def __call__(self, pieces: Iterable[Piece]) -> Iterator[Encoded]:
        """Yield the items of `pieces` in their order, as soon as they and all before them are encoded."""
        unfinished: deque[Encoded] = deque()
        current: Encoded | None = None
        for piece in pieces:
            if current is None:
                current = Encoded(piece.item)
                unfinished.append(current)
            self._add(current, piece)
            if piece.is_last:
                current.is_read, current = True, None
            while sum(map(self._amount, self._waiting.values())) > BATCHES_AHEAD * self._most:
                self._run_first()
            yield from finished(unfinished)
        while self._waiting:
            self._run_first()
            yield from finished(unfinished)
        yield from finished(unfinished)

    def _add(self, encoded: Encoded, piece: Piece) -> None:
        if piece.error is not None or encoded.error is not None:
            encoded.error = encoded.error or piece.error
        elif piece.signal is not None:
            self._wait(encoded, piece.signal)

    def _wait(self, encoded: Encoded, signal: Signal) -> None:
        values = signal.values[None]
        encoded.frame_rate, encoded.pixel_aspect = signal.frame_rate, signal.pixel_aspect
        encoded.sizes.append(self._size_of(values))
        encoded.codes.append(None)
        key = (values.shape[1:], values.dtype)
        batch = self._waiting.setdefault(key, [])
        batch.append(Waiting(encoded, len(encoded.codes) - 1, values))
        amount = self._amount(batch)
        if amount + amount // len(batch) > self._most:  # another signal of this size has no room
            self._encode_batch(self._waiting.pop(key))

    def _amount(self, batch: list[Waiting]) -> int:
        """Return the samples, pixels or residues of signals of one size."""
        return len(batch) * math.prod(self._size_of(batch[0].signal))

    def _run_first(self) -> None:
        """Encode the batch that was begun first."""
        self._encode_batch(self._waiting.pop(next(iter(self._waiting))))

    def _encode_batch(self, batch: list[Waiting]) -> None:
        """Encode signals of one size; one that is refused does not stop the others."""
        try:
            codes = self._encode(torch.cat([waiting.signal for waiting in batch]))
        except Exception as error:
            if len(batch) == 1:
                batch[0].encoded.error = error
                return
            for waiting in batch:
                self._encode_batch([waiting])
            return
        for waiting, item in zip(batch, codes, strict=True):
            waiting.encoded.codes[waiting.index] = item


def finished(unfinished: deque[Encoded]) -> Iterator[Encoded]:
    """Yield the items from the start that are done, and remove them."""
    while unfinished and unfinished[0].is_done:
        yield unfinished.popleft()
