"""Transposed convolutions that are computed as convolutions, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from zoo.layers.causal import CausalConvTranspose1d
from zoo.layers.weight_norm import WeightNormConvTranspose1d


def audio(channels: int = 6, steps: int = 7) -> torch.Tensor:
    return torch.randn(2, channels, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "output_padding"),
    [(4, 2, 1, 0), (6, 3, 2, 1), (16, 8, 4, 0), (10, 5, 3, 1), (5, 2, 0, 0), (3, 3, 0, 0)],
)
def test_with_normalised_weights_it_is_pytorchs(kernel_size, stride, padding, output_padding, training):
    torch.manual_seed(0)
    conv = WeightNormConvTranspose1d(6, 4, kernel_size, stride, padding=padding, output_padding=output_padding).double()
    torch.nn.init.normal_(conv.bias)
    expected = F.conv_transpose1d(audio(), conv.weight, conv.bias, stride, padding, output_padding)
    torch.testing.assert_close(conv.train(training)(audio()), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (3, 2), (2, 2), (7, 3), (9, 3)])
def test_a_causal_one_is_pytorchs_without_its_end_and_the_same_in_parts(kernel_size, stride, depthwise):
    torch.manual_seed(0)
    conv = CausalConvTranspose1d(6, 6, kernel_size, stride, depthwise=depthwise).double().eval()
    torch.nn.init.normal_(conv.bias)
    x = audio(steps=40)
    whole = F.conv_transpose1d(x, conv.weight, conv.bias, stride, groups=conv.groups)[..., : 40 * stride]
    torch.testing.assert_close(conv(x), whole, atol=1e-12, rtol=0)
    memory = {}
    parts = [conv(part, memory) for part in x.split([1, 3, 20, 16], dim=-1)]
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, atol=1e-12, rtol=0)


def test_the_weight_is_that_of_the_transposed_convolution_also_after_it_has_run():
    conv = WeightNormConvTranspose1d(6, 4, 4, 2).double().eval()
    with torch.no_grad():
        before = conv.weight
        conv(audio())
        assert torch.equal(conv.weight, before)
        torch.testing.assert_close(conv(audio()), F.conv_transpose1d(audio(), before, conv.bias, 2), atol=1e-12, rtol=0)


def test_weights_that_change_are_seen_and_get_gradients():
    conv = CausalConvTranspose1d(6, 6, 4, 2).double().eval()
    with torch.no_grad():
        first = conv(audio())
        conv.weight.mul_(2)
        second = conv(audio())
        bias = conv.bias[:, None]
    torch.testing.assert_close(second - bias, 2 * (first - bias), atol=1e-12, rtol=0)
    conv(audio()).square().sum().backward()
    assert conv.weight.grad.abs().min() > 0
