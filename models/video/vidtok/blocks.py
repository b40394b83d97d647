"""What VidTok's encoder and decoder are made of: blocks in space, blocks in time, and how they are computed in parts.

All take and return `[B, frames, height, width, channels]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.upsampling import convolve_doubled
from zoo.tracing import values_are_readable

STRIP = 2**28  # elements of the largest tensor of a strip of rows
CHUNK = 2**24  # elements of the largest tensor of the frames that are computed at once
KERNEL = 3  # frames

Border = Literal["zeros before", "copies before", "zeros around"]


def pad_time(x: Tensor, count: int, border: Border) -> Tensor:
    """Return the frames with `count` more of them."""
    if count == 0:  # of which ONNX Runtime would make one copy
        return x
    if border == "copies before":
        return torch.cat([x[:, :1].expand(-1, count, -1, -1, -1), x], dim=1)
    before = count // 2 if border == "zeros around" else count
    return F.pad(x, (0, 0, 0, 0, 0, 0, before, count - before))


def in_parts() -> bool:
    """Return whether a tensor may be computed part by part: not in a graph, nor where a gradient needs all parts."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def enough(parts: range, x: Tensor) -> range:
    """Return the parts that have to be computed: without values, where only memory counts, two show that of all."""
    return parts if values_are_readable(x) else parts[:2]


def by_frames(function: Callable[[Tensor], Tensor], x: Tensor, kernel: int = 1, stride: int = 1) -> Tensor:
    """Return `function(x)`, each of whose frames depends on `kernel` frames of `x`, computed a few frames at a time."""
    if not in_parts():
        return function(x)
    count = (x.shape[1] - kernel) // stride + 1
    few = max(1, CHUNK // x[:, 0].numel())
    if few >= count:
        return function(x)
    out = None
    for start in enough(range(0, count, few), x):
        end = min(start + few, count)
        part = function(x[:, start * stride : (end - 1) * stride + kernel])
        if out is None:
            out = part.new_empty(x.shape[0], count, *part.shape[2:])
        out[:, start:end] = part
    assert out is not None, "there is a frame"
    return out


def through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return what layers, one after the other, make of `x`; unlike `nn.Sequential`, it keeps no input of an earlier."""
    for layer in layers:
        x = layer(x)
    return x


def by_strips(layers: Sequence[nn.Module], x: Tensor, largest: int, reach: int) -> Tensor:
    """Return what layers make of `x`, computed from a strip of rows at a time.

    Args:
        largest: elements of the largest tensor that they make for each row and column of a frame of `x`.
        reach: rows above and below, even in number, that a row's result depends on.
    """
    if not in_parts():
        return through(layers, x)
    height = x.shape[2]
    rows = max(STRIP // (x.shape[1] * x.shape[3] * largest) - 2 * reach, reach) // 2 * 2
    if rows >= height:
        return through(layers, x)
    out = None
    for top in enough(range(0, height, rows), x):
        start, end = max(0, top - reach), min(top + rows + reach, height)
        part = through(layers, x[:, :, start:end])
        if out is None:
            scale = part.shape[2] / (end - start)
            out = part.new_empty(*part.shape[:2], int(height * scale), *part.shape[3:])
        first, last = int(top * scale), int(min(top + rows, height) * scale)
        skipped = int(start * scale)
        out[:, :, first:last] = part[:, :, first - skipped : last - skipped]
    assert out is not None, "there is a row"
    return out


def in_space(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what `function` makes of the frames one by one, as `[B * frames, channels, height, width]`."""
    y = function(x.flatten(0, 1).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class SpaceConv(nn.Conv2d):
    """A convolution of each frame."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__(channels_in, channels_out, 3, stride=stride, padding=1 if stride == 1 else 0)

    def forward(self, x: Tensor) -> Tensor:
        return in_space(super().forward, x)


class TimeConv(nn.Conv1d):
    """A convolution over three frames at each position; the frames are padded already."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._taps, x, KERNEL)

    def _taps(self, x: Tensor) -> Tensor:
        count = x.shape[1] - KERNEL + 1
        out = F.linear(x[:, :count], self.weight[:, :, 0], self.bias)
        for k in range(1, KERNEL):
            out += F.linear(x[:, k : k + count], self.weight[:, :, k])
        return out


class SpaceTimeConv(nn.Conv3d):
    """A convolution of 3 x 3 over three frames; the frames are padded already."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__(channels_in, channels_out, KERNEL, stride=(stride, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._taps, x, KERNEL, self.stride[0])

    def _taps(self, x: Tensor) -> Tensor:
        stride = self.stride[0]
        last = x.shape[1] - KERNEL + 1
        out = in_space(lambda frames: F.conv2d(frames, self.weight[:, :, 0], self.bias, padding=1), x[:, :last:stride])
        for k in range(1, KERNEL):
            convolve = partial(F.conv2d, weight=self.weight[:, :, k], padding=1)
            out += in_space(convolve, x[:, k : k + last : stride])
        return out


def layer_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


def activated(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return by_frames(lambda frames: F.silu(norm(frames)), x)


class SpaceBlock(nn.Module):
    """A residual block that sees each frame alone."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = layer_norm(channels_in)
        self.conv1 = SpaceConv(channels_in, channels_out)
        self.norm2 = layer_norm(channels_out)
        self.conv2 = SpaceConv(channels_out, channels_out)
        same = channels_in == channels_out
        self.shortcut: nn.Module = nn.Identity() if same else nn.Linear(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._frames, x)

    def _frames(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return self.shortcut(x) + h


class TimeBlock(nn.Module):
    """A residual block that sees each position alone or, with `space`, its neighbours too."""

    def __init__(self, channels: int, border: Border, space: bool = False):
        super().__init__()
        conv = partial(SpaceTimeConv, channels, channels) if space else partial(TimeConv, channels)
        self.pad = partial(pad_time, count=KERNEL - 1, border=border)
        self.norm1 = layer_norm(channels)
        self.conv1 = conv()
        self.norm2 = layer_norm(channels)
        self.conv2 = conv()
        if not space:
            for parameter in self.conv2.parameters():  # before training, time passes through, as in the authors' code
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.pad(activated(self.norm2, self.conv1(self.pad(activated(self.norm1, x))))))


class Attention(nn.Module):
    """Attention of one head over the positions of each frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = layer_norm(channels)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2, 3)
        h = F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        return x + self.out(h).unflatten(2, x.shape[2:4])


def middle(channels: int, border: Border) -> nn.Sequential:
    return nn.Sequential(
        TimeBlock(channels, border, space=True), Attention(channels), TimeBlock(channels, border, space=True)
    )


def blocks(count: int, channels_in: int, channels_out: int, border: Border) -> nn.ModuleList:
    """Return pairs of a block in space, of which the first changes the number of channels, and a block in time."""
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.ModuleList(
        nn.ModuleList([SpaceBlock(channels, channels_out), TimeBlock(channels_out, border)]) for channels in inputs
    )


def flattened(level: nn.Module) -> list[nn.Module]:
    return [block for pair in level.children() for block in pair.children()]


class TimeDownsample(nn.Module):
    """Halve the frames: a mean of three frames and a convolution, mixed."""

    def __init__(self, channels: int, border: Border):
        super().__init__()
        # Of three frames in steps of two, one lies outside: before the first or, with zeros around, after the last.
        self.pad = partial(pad_time, count=KERNEL - 2, border=border)
        self.conv = SpaceTimeConv(channels, channels, stride=2)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._mixed, self.pad(x), KERNEL, 2)

    def _mixed(self, x: Tensor) -> Tensor:
        last = x.shape[1] - KERNEL + 1
        mean = (x[:, :last:2] + x[:, 1 : 1 + last : 2] + x[:, 2 : 2 + last : 2]) / KERNEL
        share = torch.sigmoid(self.mix)
        return share * mean + (1 - share) * self.conv(x)


class TimeUpsample(nn.Module):
    """Double the frames: by repetition, or with copies before the first by interpolation, mixed with a convolution.

    The first `first` frames, which the first frame of the signal fills with copies of itself, are interpolated apart
    from the rest.
    """

    def __init__(self, channels: int, border: Border, first: int):
        super().__init__()
        self.border, self.first = border, first
        self.conv = SpaceTimeConv(channels, channels)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._mixed, pad_time(self._doubled(x), KERNEL - 1, self.border), KERNEL)

    def _doubled(self, x: Tensor) -> Tensor:
        if self.border != "copies before":
            return x.repeat_interleave(2, dim=1)
        return torch.cat([interpolated(x[:, : self.first]), interpolated(x[:, self.first :])], dim=1)

    def _mixed(self, x: Tensor) -> Tensor:
        before = 1 if self.border == "zeros around" else KERNEL - 1
        doubled = x[:, before : x.shape[1] - (KERNEL - 1 - before)]
        share = torch.sigmoid(self.mix)
        return share * doubled + (1 - share) * self.conv(x)


def interpolated(x: Tensor) -> Tensor:
    """Return twice as many frames: a quarter before and a quarter after each frame, none of them outside."""
    around = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)  # never empty, which a graph would be tied to
    before, after = around[:, :-2], around[:, 2:]
    return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], dim=2).flatten(1, 2)


class Downsample(nn.Module):
    """Halve the sides, padded at the right and at the bottom only, and with `time` the frames."""

    def __init__(self, channels: int, time: nn.Module):
        super().__init__()
        self.space = SpaceConv(channels, channels, stride=2)
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        return self.time(by_frames(lambda frames: self.space(F.pad(frames, (0, 0, 0, 1, 0, 1))), x))


class Upsample(nn.Module):
    """Double the sides, nearest neighbours then a convolution, and with `time` the frames."""

    def __init__(self, channels: int, time: nn.Module):
        super().__init__()
        self.space = SpaceConv(channels, channels)
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        return self.time(by_frames(self._doubled, x))

    def _doubled(self, x: Tensor) -> Tensor:
        return in_space(partial(convolve_doubled, self.space), x)


class Stem(SpaceTimeConv):
    """A first or last convolution, which pads the frames itself."""

    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__(channels_in, channels_out)
        self.pad = partial(pad_time, count=KERNEL - 1, border=border)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


class Head(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__()
        self.norm = layer_norm(channels_in)
        self.conv = Stem(channels_in, channels_out, border)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(activated(self.norm, x))
