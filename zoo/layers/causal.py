"""Causal convolutions over time, for a whole signal at once or for a stream that arrives in parts.

The layers hold no state. What a part needs of those before it is in a `Memory`, which the caller makes, passes to every
layer, and keeps from one part to the next. The parts that a layer returns, one after the other, are what it returns for
the whole signal, if all parts but the last are a multiple of its stride long.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.inference import kept
from zoo.layers.onednn import Conv1d, conv1d, linear
from zoo.layers.transposed import lengthened, short_kernels

Memory = dict[nn.Module, Any]  # what each layer needs of the parts before; empty before the first one
FEW = 16  # steps of a stream that are multiplied directly: a convolution would first rearrange all of its weights


def keep_variance(conv: nn.Conv1d | nn.ConvTranspose1d, inputs: float) -> None:
    """Draw weights that keep the variance of what passes through; `inputs` is the number of summands of an output.

    PyTorch's own divide it by three at every layer, until a deep encoder returns little but the sum of its biases.
    """
    nn.init.normal_(conv.weight, std=inputs**-0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class CausalConv1d(Conv1d):
    """Convolution of `[B, channels_in, time]` whose steps see no later ones: `ceil(time / stride)` steps.

    Before the signal, and after it up to a multiple of the stride, are zeros, or with `replicate` copies of its first
    and its last step.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        replicate: bool = False,
    ):
        super().__init__(channels_in, channels_out, kernel_size, stride, dilation=dilation, groups=groups, bias=bias)
        self.past = (kernel_size - 1) * dilation + 1 - stride
        self.mode = "replicate" if replicate else "constant"
        keep_variance(self, channels_in // groups * kernel_size)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        if self.kernel_size == (1,):
            return super().forward(x)
        right = -x.shape[-1] % self.stride[0] if self.stride[0] > 1 else 0
        if memory is None and self.mode == "constant" and self.past >= self.stride[0] - 1:
            # The convolution's own zeros need no copy of the signal; with those after it come steps too many.
            y = conv1d(x, self.weight, self.bias, self.stride[0], self.past, self.dilation[0], self.groups)
            return y.narrow(-1, 0, (x.shape[-1] + right) // self.stride[0])
        if memory is None:
            return super().forward(F.pad(x, (self.past, right), self.mode))
        x = torch.cat([memory[self], x], dim=-1) if self in memory else F.pad(x, (self.past, 0), self.mode)
        memory[self] = x[..., x.shape[-1] - self.past :].clone()
        if right:
            x = F.pad(x, (0, right), self.mode)
        kernel, stride = self.kernel_size[0], self.stride[0]
        if x.shape[-1] >= kernel + FEW * stride or self.groups > 1 or self.dilation[0] > 1:
            return super().forward(x)
        windows = x.unfold(-1, kernel, stride)
        return linear(rearrange(windows, "b c t k -> b t (c k)"), self.weight.flatten(1), self.bias).mT


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """Transposed convolution of `[B, channels_in, time]` whose steps see no later ones: `time * stride` steps.

    With `depthwise`, each channel has a kernel of its own.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int,
        *,
        depthwise: bool = False,
        bias: bool = True,
    ):
        groups = channels_in if depthwise else 1
        super().__init__(channels_in, channels_out, kernel_size, stride, groups=groups, bias=bias)
        keep_variance(self, channels_in // groups * kernel_size / stride)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:  # type: ignore[override]
        stride = self.stride[0]
        kernels = kept(self, partial(short_kernels, stride=stride, groups=self.groups), self.weight)
        past = kernels.shape[2] - 1
        few = memory is not None and x.shape[-1] <= FEW and self.groups == 1
        x = torch.cat([memory[self], x], dim=-1) if memory is not None and self in memory else F.pad(x, (past, 0))
        if memory is not None:
            memory[self] = x[..., x.shape[-1] - past :].clone()
        if not few:
            return lengthened(x, kernels, self.bias, stride, groups=self.groups)
        windows = rearrange(x.unfold(-1, past + 1, 1), "b c t k -> b t (c k)")
        y = rearrange(linear(windows, kernels.flatten(1)), "b t (c s) -> b c (t s)", s=stride)
        return y if self.bias is None else y + self.bias[:, None]
