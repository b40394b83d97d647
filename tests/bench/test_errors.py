"""The benchmark keeps an error that nobody foresaw to its file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.bench.runner import bench
from zoo.modalities import image


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two pictures."""
    (tmp_path / "data").mkdir()
    random = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(random.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{name}.png")
    return tmp_path / "data"


def test_a_file_that_cannot_be_read_for_lack_of_memory_is_named(tiny_wetok, folder, tmp_path, monkeypatch):
    read = image.read_image

    def read_all_but_b(source):
        if Path(str(source)).name == "b.png":
            raise MemoryError("no room")
        return read(source)

    monkeypatch.setattr(image, "read_image", read_all_but_b)
    results = bench(["tiny-wetok"], folder, out=tmp_path / "out", baselines=False, metrics=["psnr"])
    assert results.damaged == {"b.png": "unexpected MemoryError: no room"}
    assert [item.source for item in results.points[0].items] == ["a.png"]
