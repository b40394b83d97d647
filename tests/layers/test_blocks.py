"""Blocks that several systems share: shapes, and graphs for any batch."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from zoo.layers.haar import haar, inverse_haar
from zoo.layers.transformer import TransformerBlock
from zoo.layers.vqgan import Attention, Downsample, ResidualBlock, Upsample, middle


class Wavelets(nn.Module):
    """There and back."""

    def forward(self, x: Tensor) -> Tensor:
        return inverse_haar(haar(x, (3, 2), 1), (3, 2), 1)


IMAGES = {
    "residual": (lambda: ResidualBlock(8, 16), (16, 8, 8)),
    "attention": (lambda: Attention(8), (8, 8, 8)),
    "middle": (lambda: middle(8), (8, 8, 8)),
    "down": (lambda: Downsample(8), (8, 4, 4)),
    "up": (lambda: Upsample(8), (8, 16, 16)),
    "wavelets": (Wavelets, (8, 8, 8)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_block_returns_its_shape_and_exports_for_any_batch(name):
    build, shape = IMAGES[name]
    torch.manual_seed(0)
    block = build().eval()
    x = torch.randn(5, 8, 8, 8)
    assert block(x).shape == (5, *shape)
    program = torch.export.export(block, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    assert torch.allclose(program.module()(x), block(x), atol=1e-6)


def test_a_transformer_block_exports_for_any_batch_and_length():
    torch.manual_seed(0)
    block = TransformerBlock(16, 4).eval()
    x = torch.randn(3, 7, 16)
    shapes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("tokens", max=64)}
    program = torch.export.export(block, (torch.randn(2, 5, 16),), dynamic_shapes=(shapes,))
    assert torch.allclose(program.module()(x), block(x), atol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
def test_on_fake_cuda_tensors_nothing_is_made_on_the_cpu(name):
    with FakeTensorMode(), torch.device("cuda"):
        assert IMAGES[name][0]()(torch.empty(2, 8, 8, 8)).device.type == "cuda"


def test_attention_sees_all_positions():
    torch.manual_seed(0)
    attention = Attention(8).eval()
    x = torch.randn(1, 8, 4, 4)
    changed = x.clone()
    changed[..., 3, 3] += 1
    assert ((attention(changed) - attention(x))[..., 0, 0] != 0).any()


def test_downsampling_pads_at_the_right_and_at_the_bottom_only():
    down = Downsample(1)
    nn.init.ones_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)
    assert down(torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]
