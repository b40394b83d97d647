"""Haar wavelets: coefficients by their definition, and back."""

import pytest
import torch

from zoo.layers.haar import haar, inverse_haar


def test_one_level_is_means_and_half_differences_of_neighbours():
    signal = torch.tensor([[[1.0, 3.0, 2.0, 8.0]]])
    assert haar(signal, (2,), 1).tolist() == [[[2, 5], [-1, -3]]]


def test_bands_are_in_the_order_of_the_axes_means_first():
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)  # 1 from column to column, 4 from row to row
    bands = haar(ramp, (3, 2), 1)[0].mean(dim=(1, 2))
    assert bands.tolist() == [7.5, -2, -0.5, 0]  # LL, LH (rows differ), HL (columns differ), HH


@pytest.mark.parametrize(("axes", "shape"), [((2,), (2, 3, 16)), ((3, 2), (2, 3, 8, 12)), ((2, 4, 3), (1, 2, 8, 4, 8))])
def test_the_inverse_returns_the_signal(axes, shape):
    signal = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    bands = haar(signal, axes, 2)
    assert bands.shape[1] == shape[1] * 4 ** len(axes)
    assert torch.allclose(inverse_haar(bands, axes, 2), signal, atol=1e-6)
