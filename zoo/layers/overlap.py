"""Long signals in parts that overlap by what the layers see, so that the result does not depend on the parts."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

import torch

from zoo.errors import InputError
from zoo.spec import TokenizerSpec

LONGEST_CHUNK = 1e15  # seconds: beyond it, frames are not counted exactly


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


def frames_of_chunk(spec: TokenizerSpec, seconds: Any) -> int:
    """Return the whole frames in `chunk_seconds=` of audio; InputError unless it is a number with at least one."""
    assert spec.frame_rate is not None, "audio has a sample rate"
    a_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < LONGEST_CHUNK
    if not a_number or seconds * spec.frame_rate < 1:
        least = f"at least one frame, {1 / spec.frame_rate:.3g}"
        raise InputError(f"expected chunk_seconds as a number of seconds, {least}, got {reprlib.repr(seconds)}")
    return int(seconds * spec.frame_rate)
