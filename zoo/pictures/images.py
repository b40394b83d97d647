"""Images for figures: tensors to Pillow images, fitting them into the room there is, and laying them out in rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GAP = 4  # pixels between the images of a grid


def to_pixels(image: Tensor) -> np.ndarray:
    """Round a float image `[3, H, W]` in [0, 1] to uint8 `[H, W, 3]`; values outside the range are clamped."""
    pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())


def to_image(image: Tensor) -> Image.Image:
    """Convert a float image `[3, H, W]` in [0, 1] to a Pillow image of the same size."""
    return Image.fromarray(to_pixels(image))


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Scale an image so that neither side is longer than `side` pixels; a smaller image stays as it is."""
    if max(image.size) <= side:
        return image
    return image.resize(_scaled(image.size, side / max(image.size)), Image.Resampling.LANCZOS)


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Scale an image to fill a square of `side` pixels as far as it can.

    A small image is enlarged by a whole number, so that each of its pixels becomes a square; a large one is shrunk.
    """
    factor = side // max(image.size)
    if factor < 1:
        return shrunk(image, side)
    return image.resize(_scaled(image.size, factor), Image.Resampling.NEAREST)


def image_grid(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Lay out images of one size in rows, with narrow grey gaps between them."""
    width, height = rows[0][0].size
    columns = max(map(len, rows))
    grid = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "#808080")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            grid.paste(image, (column * (width + GAP), row * (height + GAP)))
    return grid


def still_indices(num_frames: int, count: int) -> list[int]:
    """Return the indices of at most `count` frames of a clip, evenly spaced from the first to the last."""
    return sorted({round(index) for index in np.linspace(0, num_frames - 1, min(count, num_frames)).tolist()})


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    width, height = size
    return max(1, round(width * factor)), max(1, round(height * factor))
