"""Long signals in parts that overlap by what the layers see, so that the result does not depend on the parts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from zoo.errors import InputError
from zoo.spec import TokenizerSpec


def overlapping(length: int, chunk: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield spans `(start, stop)` that tile `length`, each with the wider span `(first, last)` that its values need.

    In a traced graph there is one, so that the graph holds for any length.
    """
    if torch.compiler.is_compiling():
        yield 0, length, 0, length
        return
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        yield start, stop, max(start - halo, 0), min(stop + halo, length)


def frames_of_chunk(spec: TokenizerSpec, chunk_seconds: float) -> int:
    """Return the whole frames in `chunk_seconds` of audio; InputError if there is none."""
    assert spec.frame_rate is not None, "audio has a sample rate"
    frames = int(chunk_seconds * spec.frame_rate)
    if frames < 1:
        raise InputError(f"expected chunk_seconds of at least one frame, got {chunk_seconds}")
    return frames
