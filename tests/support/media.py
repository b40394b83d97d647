"""Synthetic media to train on."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def write_pictures(folder: Path, counts: dict[str, int], coarse: tuple[int, int], size: tuple[int, int]) -> Path:
    """Random pixels, `coarse` rows and columns, smoothly enlarged to `size`, width and height; `folder` again."""
    random = np.random.default_rng(0)
    for part, count in counts.items():
        (folder / part).mkdir(parents=True)
        for number in range(count):
            pixels = Image.fromarray(random.integers(0, 256, (*coarse, 3), dtype=np.uint8))
            pixels.resize(size, Image.Resampling.BICUBIC).save(folder / part / f"{number}.png")
    return folder


def helix(residues: int) -> torch.Tensor:
    """An alpha helix `[residues, 5, 3]`: radius, angle from its CA and rise of each atom."""
    atoms = ((1.55, -0.49, -0.9), (2.28, 0.0, 0.0), (1.68, 0.46, 1.1), (3.3, 0.35, -0.4), (2.0, 0.62, 2.3))
    return torch.tensor(
        [
            [
                (
                    radius * math.cos(math.radians(100) * number + angle),
                    radius * math.sin(math.radians(100) * number + angle),
                    1.5 * number + rise,
                )
                for radius, angle, rise in atoms
            ]
            for number in range(residues)
        ]
    )
