"""Synthetic data to train on."""

import numpy as np
import pytest
import soundfile
import torch

from tests.support import teachers
from tests.support.media import helix, write_pictures
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
