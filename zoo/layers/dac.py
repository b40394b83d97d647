"""The stages of Descript's audio codec (arXiv 2306.06546), of weight-normalised convolutions, with any activation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from zoo.layers.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d

Activation = Callable[[int], nn.Module]  # makes the activation for a number of channels
DILATIONS = (1, 3, 9)  # of the residual units of a stage


class ResidualUnit(nn.Module):
    """gain: the norms of the last convolution at the start. depthwise: whether a channel's first one sees it alone."""

    def __init__(self, channels: int, dilation: int, activation: Activation, gain: float, depthwise: bool):
        super().__init__()
        self.act1 = activation(channels)
        groups = channels if depthwise else 1
        self.conv1 = WeightNormConv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation, groups=groups)
        self.act2 = activation(channels)
        self.conv2 = WeightNormConv1d(channels, channels, 1)
        nn.init.constant_(self.conv2.weight_g, gain)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.act1(x))
        h = self.conv2(self.act2(h))
        h += x
        return h


def residual_units(channels: int, activation: Activation, gain: float, depthwise: bool) -> nn.Sequential:
    return nn.Sequential(*(ResidualUnit(channels, dilation, activation, gain, depthwise) for dilation in DILATIONS))


class EncoderStage(nn.Module):
    """`[B, channels_in, steps]` to `[B, channels_out, steps / stride]`; `gain` and `depthwise` as in `ResidualUnit`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        activation: Activation,
        gain: float = 1.0,
        *,
        depthwise: bool = False,
    ):
        super().__init__()
        self.units = residual_units(channels_in, activation, gain, depthwise)
        self.act = activation(channels_in)
        padding = stride // 2 + stride % 2
        self.conv = WeightNormConv1d(channels_in, channels_out, 2 * stride, stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.units(x)))


class DecoderStage(nn.Module):
    """`[B, channels_in, steps]` to `[B, channels_out, steps * stride]`; `gain` and `depthwise` as in `ResidualUnit`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        activation: Activation,
        gain: float = 1.0,
        *,
        depthwise: bool = False,
    ):
        super().__init__()
        self.act = activation(channels_in)
        odd = stride % 2
        self.conv = WeightNormConvTranspose1d(
            channels_in, channels_out, 2 * stride, stride, padding=stride // 2 + odd, output_padding=odd
        )
        self.units = residual_units(channels_out, activation, gain, depthwise)

    def forward(self, x: Tensor) -> Tensor:
        return self.units(self.conv(self.act(x)))
