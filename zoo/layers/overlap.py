"""Long signals in parts that overlap by what the layers see, so that the result does not depend on the parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.spec import TokenizerSpec


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


def frames_of_chunk(spec: TokenizerSpec, chunk_seconds: float) -> int:
    """Return the whole frames in `chunk_seconds` of audio; InputError if there is none."""
    assert spec.frame_rate is not None, "audio has a sample rate"
    frames = int(chunk_seconds * spec.frame_rate)
    if frames < 1:
        raise InputError(f"expected chunk_seconds of at least one frame, got {chunk_seconds}")
    return frames
