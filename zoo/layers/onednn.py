"""Linear maps and convolutions whose arithmetic oneDNN does: on AMD's processors, in half the time or less.

PyTorch leaves matrix products of float32 to MKL, which on an AMD EPYC was measured at half of oneDNN's speed, and with
them convolutions by a kernel of one position, unless the batch is large. Dilated depthwise convolutions take it five
times as long as others. The functions here take the arguments of those in `torch.nn.functional` and return what these
return, except for rounding. What needs a gradient, a graph or another device is PyTorch's own.

`use_onednn` has the modules of `torch.nn` in a network call them.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.inference import is_inferring
from zoo.tracing import values_are_readable

IS_THERE = platform.machine() in ("x86_64", "AMD64") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
MOST_VALUES = 4096  # of a weight that is left to MKL: calling oneDNN takes ten microseconds more
FEW_ROWS = 16
MANY_CHANNELS = 512  # beyond it, what a position gets from `product_of_columns` depends on how many there are


def applies(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN can multiply these, and nothing is lost by it."""
    return (
        IS_THERE
        and is_inferring()
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and values_are_readable(x)
    )


# Functions


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `F.linear`. What a row of `x` becomes does not depend on how many rows there are, if there are more than 16.

    So few are what a stream brings at once. MKL is as fast for them, and rounds in several ways.
    """
    if weight.numel() > MOST_VALUES and applies(x, weight) and x.shape[:-1].numel() > FEW_ROWS:
        return product(x, weight, bias)
    return F.linear(x, weight, bias)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """As `F.conv1d` of `[B, channels, time]`; quicker with a kernel of one step, or if depthwise and dilated."""
    if stride == 1 and x.ndim == 3 and applies(x, weight):
        if weight.shape[2] == 1 and padding == 0 and groups == 1:
            return pointwise(x, weight[:, :, 0], bias)
        if dilation > 1 and groups == x.shape[1] == weight.shape[0]:
            return depthwise_by_phase(x, weight, bias, padding, dilation)
    return F.conv1d(x, weight, bias, stride, padding, dilation, groups)


def least_rows(channels: int) -> int:
    """Return from how many rows on oneDNN takes one and the same kernel; that for fewer rounds in another way."""
    return FEW_ROWS if channels <= 384 else max(FEW_ROWS, 49152 // channels + 1)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `x @ weight.T + bias`. For a weight with gaps in its memory oneDNN has only a loop, hence the copy."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    lacking = least_rows(rows.shape[1]) - count
    if lacking > 0:
        rows = F.pad(rows, (0, 0, 0, lacking))
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight.contiguous(), bias, "none", [], "")
    return out[:count].view(*x.shape[:-1], len(weight))


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `[B, channels_out, *positions]`, of each position the product of `weight` with its channels."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return product(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    if x.shape[1] <= MANY_CHANNELS:
        return product_of_columns(x.flatten(2).contiguous(), weight, bias).unflatten(2, x.shape[2:])
    return product(x.flatten(2).mT, weight, bias).mT.contiguous().unflatten(2, x.shape[2:])


def product_of_columns(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `weight @ x + bias` of `[B, channels, positions]`: the weight's rows are multiplied with the signal."""
    if len(x) > 1:
        out = x.new_empty(len(x), len(weight), x.shape[2])
        for i, item in enumerate(x.split(1)):
            out[i : i + 1] = product_of_columns(item, weight, bias)
        return out
    values: Tensor = torch.ops.mkldnn._linear_pointwise(weight, x[0].mT, None, "none", [], "")
    return (values if bias is None else values.add_(bias[:, None]))[None]


def depthwise_by_phase(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Tensor:
    """Return a dilated depthwise convolution: time in rows as long as the dilation, convolved down the columns."""
    length = x.shape[2] + 2 * padding
    before, within = (0, padding // dilation) if padding % dilation == 0 else (padding, 0)
    lacking = -(x.shape[2] + 2 * before) % dilation
    if before or lacking:
        x = F.pad(x, (before, before + lacking))
    rows = x.unflatten(2, (-1, dilation))
    out = F.conv2d(rows, weight[..., None], bias, padding=(within, 0), groups=len(weight))
    return out.flatten(2)[..., : length - dilation * (weight.shape[2] - 1)]


# Modules


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv1d(nn.Conv1d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(x, weight, bias)
        (stride,), (padding,), (dilation,) = self.stride, self.padding, self.dilation
        return conv1d(x, weight, bias, stride, padding, dilation, self.groups)


class Conv2d(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        is_plain = self.stride == (1, 1) and self.padding == (0, 0) and self.groups == 1
        if self.kernel_size == (1, 1) and is_plain and x.ndim == 4 and applies(x, weight):
            return pointwise(x, weight[:, :, 0, 0], bias)
        return super()._conv_forward(x, weight, bias)


QUICK: dict[type[nn.Module], Any] = {nn.Linear: Linear, nn.Conv1d: Conv1d, nn.Conv2d: Conv2d}


def use_onednn(network: nn.Module) -> None:
    """Have every `nn.Linear`, `nn.Conv1d` and `nn.Conv2d` in a network be one of the classes above."""
    for module in network.modules():
        module.__class__ = QUICK.get(type(module), type(module))


class Quick(nn.Module):
    """A network that calls `use_onednn` for each module that becomes an attribute of it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            use_onednn(value)
        super().__setattr__(name, value)
