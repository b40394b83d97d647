"""Synthetic data to train on."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tests.training import teachers
from zoo.media import write_structure, write_video


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_teachers(monkeypatch):
    """Small networks in place of published ones, whose weights are not at hand."""
    teachers.install(monkeypatch.setattr)


@pytest.fixture
def images(tmp_path):
    """Folder with six smooth pictures of 40 by 24 to train on, and two to validate with."""
    return write_pictures(tmp_path / "images", {"train": 6, "val": 2}, coarse=(3, 5), size=(40, 24))


@pytest.fixture
def speech(tmp_path):
    """Folder with four chirps of half a second at 16 kHz to train on, and two to validate with."""
    seconds = np.arange(8000) / 16000
    for part, count in (("train", 4), ("val", 2)):
        (tmp_path / "speech" / part).mkdir(parents=True)
        for number in range(count):
            chirp = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * seconds * (1 + seconds))
            soundfile.write(tmp_path / "speech" / part / f"{number}.wav", chirp, 16000)
    return tmp_path / "speech"


@pytest.fixture
def noise():
    """Two float signals `[2, 1, 4800]`."""
    return torch.randn(2, 2, 1, 4800, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.fixture
def clips(tmp_path):
    """Folder with three clips of moving stripes, 12 frames of 40 by 56, to train on, and two to validate with."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(56), indexing="ij")
    for part, count in (("train", 3), ("val", 2)):
        (tmp_path / "clips" / part).mkdir(parents=True)
        for number in range(count):
            phases = [(columns + rows * number + 2 * frame) / 5 for frame in range(12)]
            video = torch.stack([0.5 + 0.5 * phase.sin() for phase in phases]).expand(3, -1, -1, -1)
            write_video(tmp_path / "clips" / part / f"{number}.mp4", video, fps=12)
    return tmp_path / "clips"


@pytest.fixture
def chains(tmp_path):
    """Folder with seven helices of 12 to 36 residues to train on, and two to validate with."""
    for part, count in (("train", 7), ("val", 2)):
        (tmp_path / "chains" / part).mkdir(parents=True)
        for number in range(count):
            write_structure(tmp_path / "chains" / part / f"{number}.pdb", helix(12 + 4 * number))
    return tmp_path / "chains"


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
