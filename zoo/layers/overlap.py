"""Long signals in parts that overlap by what the layers see, so that the result does not depend on the parts."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.spec import TokenizerSpec

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

    def of(self, x: Tensor, scale: int = 1) -> Tensor:
        """Return the steps `first` to `last` of `[..., steps]`, of which `x` has `scale` for each of the chunk's."""
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


def in_chunks(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    length: int,
    chunk: int,
    halo: int,
    *,
    given: int = 1,
    made: int = 1,
) -> Tensor:
    """Return `function(x)` `[..., steps]`, computed a chunk at a time as `overlapping` cuts them.

    The parts go into one tensor at once: as long as all of them live, memory that is freed between them has holes.

    Args:
        length, chunk, halo: as `overlapping` takes them.
        given, made: how many values `x` and the result have for each step.
    """
    result = None
    for part in overlapping(length, chunk, halo):
        computed = part.trim(function(part.of(x, given)), made)
        if part.is_whole:
            return computed
        if result is None:
            result = computed.new_empty(*computed.shape[:-1], length * made)
        result[..., part.start * made : part.stop * made] = computed
    assert result is not None, "there is a step"
    return result


def frames_of_chunk(spec: TokenizerSpec, seconds: Any, option: str = "chunk_seconds") -> int:
    """Return the whole frames in the seconds of an option; InputError unless it is a number with at least one."""
    assert spec.frame_rate is not None, "audio has a sample rate"
    a_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < LONGEST_CHUNK
    if not a_number or seconds * spec.frame_rate < 1:
        least = f"at least one frame, {1 / spec.frame_rate:.3g}"
        raise InputError(f"expected {option} as a number of seconds, {least}, got {reprlib.repr(seconds)}")
    return int(seconds * spec.frame_rate)
