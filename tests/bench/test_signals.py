"""What candidates are given, and the lossless files of what they give back."""

import pytest
import torch

from zoo.bench.signals import Preprocessing
from zoo.modalities import Signal


@pytest.mark.parametrize("modality", ["image", "audio", "video", "structure"])
def test_what_is_kept_is_lossless(modality, tmp_path):
    preprocessing = Preprocessing(modality=modality, sample_rate=24000, channels=1)
    draw = torch.Generator().manual_seed(0)
    shape = {"image": (3, 9, 7), "audio": (1, 999), "video": (3, 5, 18, 10), "structure": (8, 5, 3)}[modality]
    values = torch.rand(shape, generator=draw)
    scale = {"image": 255, "video": 255, "audio": 32768}.get(modality, 1)
    values = (values * scale).round().clamp(max=scale - 1) / scale if scale > 1 else values * 50
    if modality == "structure":
        values[2, 3], values[5] = torch.nan, torch.nan
    signal = Signal(values, 25.0)
    path = tmp_path / f"kept{preprocessing.kind.lossless_suffix}"
    preprocessing.write(path, signal)
    torch.testing.assert_close(preprocessing.read(path, signal), values, rtol=0, atol=0, equal_nan=True)
