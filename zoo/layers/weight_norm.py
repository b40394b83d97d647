"""Weight normalisation (arXiv 1602.07868) by a plain module, which can be pickled, copied and exported."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNormConv1d(nn.Module):
    """Convolution over time, each of whose output channels has a kernel of a learned direction and a learned norm.

    Takes `[B, channels_in, time]`. The norms start at 1, which keeps the variance of what passes through: PyTorch's own
    initial norms divide it by three at every layer, until a deep encoder returns little but the sum of its biases,
    which start at 0 here.

    Parameters: `weight_g`, the norms, `[channels_out, 1, 1]`; `weight_v`, the directions, of any length,
    `[channels_out, channels_in, kernel_size]`; `bias`, `[channels_out]`.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.weight_g = nn.Parameter(torch.ones(channels_out, 1, 1))
        self.weight_v = nn.Conv1d(channels_in, channels_out, kernel_size).weight
        self.bias = nn.Parameter(torch.zeros(channels_out))

    @property
    def weight(self) -> Tensor:
        """The kernels, `[channels_out, channels_in, kernel_size]`."""
        norms = torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)
        return self.weight_v * (self.weight_g / norms)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight, self.bias, self.stride)
