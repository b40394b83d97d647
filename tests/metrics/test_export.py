"""Metrics in graphs and with tensors that have no values: checks of values are left out there."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from zoo.metrics.audio import stft_distance
from zoo.metrics.image import psnr, ssim
from zoo.metrics.structure import angle_deviation, bond_deviation
from zoo.metrics.video import flicker

FIGURES = {
    "psnr": (psnr, (2, 3, 16, 16)),
    "ssim": (ssim, (2, 3, 16, 16)),
    "stft_distance": (partial(stft_distance, sample_rate=24000), (2, 1, 4800)),
    "flicker": (flicker, (2, 3, 4, 8, 8)),
    "bond_deviation": (bond_deviation, (2, 9, 5, 3)),
    "angle_deviation": (angle_deviation, (2, 9, 5, 3)),
}


class Figure(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.figure = FIGURES[name][0]

    def forward(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        return self.figure(reconstruction, original)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_exports_and_gives_the_same(name):
    torch.manual_seed(0)
    pair = tuple(torch.rand(FIGURES[name][1]) for _ in range(2))
    figure = Figure(name)
    program = torch.export.export(figure, pair)
    assert torch.allclose(program.module()(*pair), figure(*pair), rtol=1e-5)


@pytest.mark.parametrize("name", FIGURES)
def test_on_fake_cuda_tensors_nothing_is_made_on_the_cpu(name):
    with FakeTensorMode(), torch.device("cuda"):
        assert Figure(name)(*(torch.rand(FIGURES[name][1]) for _ in range(2))).device.type == "cuda"
