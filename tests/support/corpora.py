"""Rows of small corpora, one for each layout that codes have."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from zoo.corpus.rows import Facts, Row

LAYOUTS = ("residual audio", "prefixed audio", "images", "scales", "video", "structures")
SHARD = "00003"


def facts(layout: str = "residual audio") -> Facts:
    modality, sizes, sample_rate = {
        "residual audio": ("audio", (16, 16, 16), 24000),
        "prefixed audio": ("audio", (70000,), 16000),
        "images": ("image", (256, 300), None),
        "scales": ("image", (4096,), None),
        "video": ("video", (64000,), None),
        "structures": ("structure", (8192,), None),
    }[layout]
    return Facts("sample", "0f" * 32, modality, sizes, sample_rate, "MIT", {"num_codebooks": len(sizes)})


def shape(layout: str, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and size of an item."""
    return {
        "residual audio": ((number + 2,), (320 * number + 500,)),
        "prefixed audio": ((32 + number,), (640 * number + 1,)),
        "images": ((number + 1, 3), (8 * number + 5, 24)),
        "scales": ((1 + 4 + 9 + 16 * (number % 2),), (16 * (number % 2 + 3), 64)),
        "video": ((number % 3 + 1, 2, number + 1), (4 * (number % 3) + 1, 16, 8 * number + 8)),
        "structures": ((number + 1,), (number + 1,)),
    }[layout]


def rows(layout: str = "residual audio", count: int = 5, media: Path | None = None) -> Iterator[Row]:
    sizes = facts(layout).codebook_sizes
    for number in range(count):
        grid, size = shape(layout, number)
        generator = torch.Generator().manual_seed(number)
        codes = torch.stack([torch.randint(size, grid, generator=generator) for size in sizes])
        codes.view(-1)[-1] = sizes[-1] - 1
        is_video = layout == "video"
        yield Row(
            "some folder/",
            f"sub folder/clip {number}.v1.é.flac",
            codes,
            size,
            frame_rate=29.97 if is_video else None,
            pixel_aspect=1.5 if is_video and number % 2 else None,
            media=media,
        )


def failing_rows(count: int = 3) -> Iterator[Row]:
    yield from rows(count=count)
    raise RuntimeError("the source broke")


def counted_rows(alive: list[int], count: int) -> Iterator[Row]:
    """Rows of which each notes, when the next one is asked for, how many codes are in memory."""
    in_memory: set[int] = set()
    for number in range(count):
        array = np.full((3, 40), number % 16)
        in_memory.add(number)
        weakref.finalize(array, in_memory.discard, number)  # all tensors that share the memory hold the array
        row = Row("source", f"{number}.flac", torch.from_numpy(array), (12800,))
        del array
        yield row
        del row
        alive.append(len(in_memory))
