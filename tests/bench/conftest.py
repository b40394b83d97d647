"""Images to measure, and reports that are written once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.bench import write_benchmark
from zoo.bench.report import write_report


@pytest.fixture
def image_folder(tmp_path):
    """Four images of 48 by 64 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows, columns = np.mgrid[:48, :64]
    for number in range(4):
        waves = [np.sin(rows / (3 + number)) + np.cos(columns / (5 + k)) for k in range(3)]
        Image.fromarray((np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="package")
def reports(tmp_path_factory) -> Callable[[str], Path]:
    """The report of each modality, written once."""
    written: dict[str, Path] = {}

    def report(modality: str) -> Path:
        if modality not in written:
            folder = tmp_path_factory.mktemp(modality)
            write_report(write_benchmark(folder, modality), folder, folder / "report.html", folder / "data")
            written[modality] = folder / "report.html"
        return written[modality]

    return report
