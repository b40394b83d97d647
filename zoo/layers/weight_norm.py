"""Weight normalisation (arXiv 1602.07868) by plain modules, which can be pickled, copied and exported.

Their parameters: `weight_v`, the directions, of any length; `weight_g`, the norm of each kernel, with the axes of
`weight_v`, of which only the first is longer than 1; `bias`, where there is one. The norms start so that the variance
of what passes through is kept: the norms of PyTorch's own start shrink it threefold at every layer, until a deep
encoder returns little but the sum of its biases, which start at 0.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from zoo.inference import kept
from zoo.layers.onednn import conv1d, linear
from zoo.layers.transposed import lengthened, short_kernels


class WeightNorm(nn.Module):
    """A weight each of whose slices along the first axis has a learned direction and a learned norm."""

    def __init__(self, directions: Tensor, norm: float):
        super().__init__()
        self.weight_g = nn.Parameter(torch.full((len(directions), *[1] * (directions.ndim - 1)), norm))
        self.weight_v = nn.Parameter(directions.detach())

    @property
    def weight(self) -> Tensor:
        """The weight, in the shape of `weight_v`."""
        return kept(self, normalised, self.weight_g, self.weight_v)


def normalised(norm: Tensor, directions: Tensor) -> Tensor:
    """Return the weight of these norms and directions."""
    axes = tuple(range(1, directions.ndim))
    return directions * (norm / torch.linalg.vector_norm(directions, dim=axes, keepdim=True))


class WeightNormConv1d(WeightNorm):
    """Convolution of `[B, channels_in, time]`; each output channel's kernel has a norm.

    groups: number of groups that the channels are in, each of which sees only its own. bias: whether there is one.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int = 1,
        *,
        dilation: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(nn.Conv1d(channels_in, channels_out, kernel_size, groups=groups).weight, 1.0)
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.stride, self.dilation, self.padding, self.groups = stride, dilation, padding, groups

    def forward(self, x: Tensor) -> Tensor:
        return conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class WeightNormConvTranspose1d(WeightNorm):
    """Transposed convolution; each input channel's kernel `[channels_out, kernel_size]` has a norm."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int,
        *,
        padding: int = 0,
        output_padding: int = 0,
    ):
        directions = nn.ConvTranspose1d(channels_in, channels_out, kernel_size).weight
        super().__init__(directions, math.sqrt(channels_out * stride / channels_in))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    @property
    def weight(self) -> Tensor:
        """As of the other modules, but computed each time: what is kept here are the kernels made of it."""
        return normalised(self.weight_g, self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        kernels = kept(self, partial(normalised_kernels, self.stride), self.weight_g, self.weight_v)
        y = lengthened(x, kernels, self.bias, self.stride, padding=kernels.shape[2] - 1)
        length = (x.shape[-1] - 1) * self.stride + self.weight_v.shape[2] - 2 * self.padding + self.output_padding
        return y.narrow(-1, self.padding, length)


def normalised_kernels(stride: int, norm: Tensor, directions: Tensor) -> Tensor:
    """Return the kernels of the convolution that stands for a transposed one of these norms and directions."""
    return short_kernels(normalised(norm, directions), stride)


class WeightNormLinear(WeightNorm):
    """Linear map of the last axis, in the data type of what comes in; the weights of each output have a norm."""

    def __init__(self, features_in: int, features_out: int):
        super().__init__(nn.Linear(features_in, features_out).weight, 1.0)
        self.bias = nn.Parameter(torch.zeros(features_out))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
