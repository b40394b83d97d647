"""Transposed convolutions over time, computed as convolutions: on the CPU in half the time, with less memory.

A step of the signal becomes `stride` steps, each the sum of as many products as kernels reach over it. So a convolution
with a short kernel and `stride` times the channels has all of them, and its channels only have to be laid out in time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from zoo.layers.onednn import conv1d


def short_kernels(weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """Return the weight of the convolution, `[channels_out * stride, channels_in / groups, taps]`.

    Args:
        weight: of the transposed convolution, `[channels_in, channels_out / groups, kernel_size]`; the number of taps
            is `ceil(kernel_size / stride)`.
    """
    weight = F.pad(weight, (0, -weight.shape[2] % stride))
    return rearrange(weight, "(g i) o (p s) -> (g o s) i p", g=groups, s=stride).flip(2)


def lengthened(
    x: Tensor, kernels: Tensor, bias: Tensor | None, stride: int, *, padding: int = 0, groups: int = 1
) -> Tensor:
    """Return the convolution of `[B, channels_in, time]`, laid out in time: `[B, channels_out, steps * stride]`.

    The convolution has `steps = time + 2 * padding - taps + 1`. With a padding of `taps - 1` the result is the
    transposed convolution without padding, and after it the bias alone for the steps by which `kernel_size` lacks to a
    multiple of the stride.

    Args:
        kernels: as `short_kernels` returns them.
        bias: `[channels_out]`.
        padding: number of zeros at both ends of `x`.
    """
    if bias is not None and torch.compiler.is_compiling():
        # PyTorch's compiler takes no bias that is computed in the graph.
        return lengthened(x, kernels, None, stride, padding=padding, groups=groups) + bias[:, None]
    bias = None if bias is None else bias.repeat_interleave(stride)
    y = conv1d(x, kernels, bias, padding=padding, groups=groups)
    return rearrange(y, "b (c s) t -> b c (t s)", s=stride)
