"""Codes as images: one coloured square for each token."""

from __future__ import annotations

import math

import numpy as np
from einops import rearrange
from PIL import Image
from torch import Tensor

GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples lie far apart on a circle, so neighbouring integers differ in hue
LINE_SHAPE = 2.0  # width over height of a row of codes that is broken into lines


def code_image(codes: Tensor) -> Image.Image:
    """Draw codes as an image with one pixel for each token: equal codes have equal colours.

    Codes on a line are broken into lines like text, each with one row of pixels for each codebook. Codes on a grid are
    drawn as their grid, one for each codebook and, of video, for each step in time. What is between lines and grids is
    transparent.

    Args:
        codes: int64 `[num_codebooks, *grid]`, with one to three axes of the grid.

    Returns:
        An RGBA image, to be enlarged without smoothing.
    """
    if codes.ndim == 2:
        num_codebooks, length = codes.shape
        width = min(length, max(1, round(math.sqrt(LINE_SHAPE * num_codebooks * length))))
        lines = [codes[:, start : start + width] for start in range(0, length, width)]
        return _stacked([[_colored(line)] for line in lines], gap=int(num_codebooks > 1))
    panels = [_colored(panel) for panel in codes.flatten(0, -3)]
    columns = math.ceil(math.sqrt(len(panels)))
    return _stacked([panels[start : start + columns] for start in range(0, len(panels), columns)], gap=1)


def _colored(codes: Tensor) -> np.ndarray:
    """Return codes `[rows, columns]` as uint8 `[rows, columns, 4]`."""
    numbers = codes.cpu().numpy().astype(np.float64) + 1
    hue, shade = numbers * GOLDEN % 1, numbers * math.sqrt(2) % 1
    # Three cosines a third of a turn apart: hues of about the same lightness.
    waves = np.cos(2 * np.pi * (hue[..., None] - np.array([0, 1 / 3, 2 / 3])))
    colors = (0.35 + 0.35 * shade[..., None]) + 0.27 * waves
    opaque = np.ones((*codes.shape, 1))
    return (np.concatenate([colors.clip(0, 1), opaque], axis=2) * 255).round().astype(np.uint8)


def _stacked(rows: list[list[np.ndarray]], gap: int) -> Image.Image:
    """Lay out images in rows; each place is as large as the first image."""
    height, width, channels = rows[0][0].shape
    whole = np.zeros((len(rows), height + gap, len(rows[0]), width + gap, channels), np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            whole[row, : image.shape[0], column, : image.shape[1]] = image
    joined = rearrange(whole, "rows height columns width channels -> (rows height) (columns width) channels")
    return Image.fromarray(joined[: joined.shape[0] - gap, : joined.shape[1] - gap])
