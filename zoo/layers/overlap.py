"""Long signals in parts that overlap by what the layers see, so that the result does not depend on the parts."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.spec import TokenizerSpec
from zoo.system_memory import release_freed_memory
from zoo.tracing import values_are_readable

SECONDS_BETWEEN = 1.0  # of time that memory is given back
LONGEST_CHUNK = 1e15  # seconds: beyond it, frames are not counted exactly


@dataclass(frozen=True)
class Chunk:
    """A part of a signal: steps `start` to `stop`, whose values depend on the steps `first` to `last`.

    is_whole: whether it is the whole signal. It is then not cut, which would tie an exported graph to its length.
    """

    start: int
    stop: int
    first: int
    last: int
    is_whole: bool

    def of(self, x: Tensor | Tape, scale: int = 1) -> Tensor:
        """Return the steps `first` to `last` of `[..., steps]`, of which `x` has `scale` for each of the chunk's."""
        if isinstance(x, Tape):
            return x.read(self.first * scale, self.last * scale)
        return x if self.is_whole else x[..., self.first * scale : self.last * scale]

    def trim(self, x: Tensor, scale: int = 1) -> Tensor:
        """Return the steps `start` to `stop` of what was computed from those that `of` returned."""
        return x if self.is_whole else x[..., (self.start - self.first) * scale : (self.stop - self.first) * scale]


def overlapping(length: int, chunk: int, halo: int) -> Iterator[Chunk]:
    """Yield chunks of at most `chunk` steps that tile `length`, each with `halo` steps more on either side.

    In a traced graph there is one, so that the graph holds for any length.
    """
    if torch.compiler.is_compiling() or length <= chunk:
        yield Chunk(0, length, 0, length, True)
        return
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        yield Chunk(start, stop, max(start - halo, 0), min(stop + halo, length), False)


class Tape:
    """A signal `[..., steps]` that comes in parts, one after the other, and is forgotten once it has been read.

    Now and then, freed memory goes back to the system: otherwise glibc keeps what lies between tensors in use, which in
    ten minutes of sound are hundreds of mebibytes. To get it again may take a tenth of a second, hence not each time.

    Args:
        parts: tensors `[..., steps]`; the next one is taken when it is needed.
    """

    def __init__(self, parts: Iterator[Tensor]):
        self.parts, self.start, self.released = parts, 0, 0.0
        self.held = next(parts)

    def read(self, first: int, last: int) -> Tensor:
        """Return the steps `first` to `last`; those before `first` cannot be read any more."""
        self.held, self.start = self.held[..., first - self.start :], first
        while first + self.held.shape[-1] < last:
            if time.monotonic() - self.released > SECONDS_BETWEEN:
                release_freed_memory()
                self.released = time.monotonic()
            self.held = torch.cat([self.held, next(self.parts)], dim=-1)
        return self.held[..., : last - first]


def each_chunk(
    function: Callable[[Tensor], Tensor],
    x: Tensor | Tape,
    length: int,
    chunk: int,
    halo: int,
    *,
    given: int = 1,
    made: int = 1,
) -> Iterator[Tensor]:
    """Yield `function(x)` `[..., steps]`, computed a chunk at a time as `overlapping` cuts them.

    Args:
        length, chunk, halo: as `overlapping` takes them.
        given, made: how many values `x` and the result have for each step.
    """
    for part in overlapping(length, chunk, halo):
        yield part.trim(function(part.of(x, given)), made)


def joined(parts: Iterator[Tensor], length: int) -> Tensor:
    """Return parts that have `length` steps together as one tensor.

    Each goes there at once: as long as all of them live, memory that is freed between them has holes. Without values,
    where only memory counts, two parts show nearly that of all.
    """
    first = next(parts)
    if first.shape[-1] == length:
        return first
    result = first.new_empty(*first.shape[:-1], length)
    result[..., : first.shape[-1]] = first
    start = first.shape[-1]
    for part in parts if values_are_readable(first) else islice(parts, 1):
        result[..., start : start + part.shape[-1]] = part
        start += part.shape[-1]
    return result


def frames_of_chunk(spec: TokenizerSpec, seconds: Any, option: str = "chunk_seconds") -> int:
    """Return the whole frames in the seconds of an option; InputError unless it is a number with at least one."""
    assert spec.frame_rate is not None, "audio has a sample rate"
    a_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < LONGEST_CHUNK
    if not a_number or seconds * spec.frame_rate < 1:
        least = f"at least one frame, {1 / spec.frame_rate:.3g}"
        raise InputError(f"expected {option} as a number of seconds, {least}, got {reprlib.repr(seconds)}")
    return int(seconds * spec.frame_rate)
