"""What VidTok's encoder and decoder are made of: blocks in space, blocks in time, and how they are computed in parts.

All take and return `[B, frames, height, width, channels]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.onednn import linear
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


class Strip(NamedTuple):
    """Rows `top` to `bottom` of `height`, which are computed from the rows `start` to `end`."""

    start: int
    top: int
    bottom: int
    end: int
    height: int


@dataclass(eq=False)
class Carry:
    """What the layers keep of the parts of a clip before the one that is computed: their last frames, of whole height.

    is_first, is_last: whether the part is the first or the last. rows: rows of a strip, which are the same in all
    parts, by the first of the layers that are computed in strips. strip: the strip that is computed; None: all rows.
    """

    is_first: bool = True
    is_last: bool = True
    rows: dict[nn.Module, int] = field(default_factory=dict)
    strip: Strip | None = None
    _frames: dict[nn.Module, Tensor] = field(default_factory=dict)
    _late: dict[nn.Module, tuple[int, Tensor]] = field(default_factory=dict)  # top and rows of the strip before

    def earlier(self, layer: nn.Module) -> Tensor:
        """Return the frames that a layer kept of the part before."""
        if self.strip is None:
            return self._frames.pop(layer)
        kept = self._frames[layer]
        scale = kept.shape[2] / self.strip.height
        return kept[:, :, int(self.strip.start * scale) : int(self.strip.end * scale)]

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Keep frames for the next part: of a strip, the rows that are its own."""
        if self.strip is None:
            self._frames[layer] = frames.clone()
            return
        scale = frames.shape[2] / (self.strip.end - self.strip.start)
        start, top, bottom, _, height = (int(row * scale) for row in self.strip)
        if layer not in self._frames:
            self._frames[layer] = frames.new_empty(*frames.shape[:2], height, *frames.shape[3:])
        self._write(layer)
        # Written only after the next strip, which reaches into these rows of the part before.
        self._late[layer] = top, frames[:, :, top - start : bottom - start].clone()

    def end_strips(self) -> None:
        """Keep the rows of the last strip too; what follows gets all rows."""
        self.strip = None
        for layer in list(self._late):
            self._write(layer)

    def _write(self, layer: nn.Module) -> None:
        if layer in self._late:
            top, rows = self._late.pop(layer)
            self._frames[layer][:, :, top : top + rows.shape[2]] = rows


def continued(x: Tensor, count: int, border: Border, layer: nn.Module, carry: Carry | None) -> Tensor:
    """Return the frames with `count` more before them: after the first part, what `layer` kept of the part before."""
    if carry is None:
        return pad_time(x, count, border)
    x = pad_time(x, count, border) if carry.is_first else torch.cat([carry.earlier(layer), x], dim=1)
    if not carry.is_last:
        carry.keep(layer, x[:, x.shape[1] - count :])
    return x


def in_parts() -> bool:
    """Return whether a tensor may be computed part by part: not in a graph, nor where a gradient needs all parts."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def enough(parts: range, x: Tensor) -> range:
    """Return the parts that have to be computed: without values, where only memory counts, two show that of all."""
    return parts if values_are_readable(x) else parts[:2]


def parts_of(x: Tensor, length: int, step: int) -> list[Tensor]:
    """Return the parts of a clip `[B, channels, frames, ...]`: whole steps, in the first part after a single frame.

    Args:
        length: most frames of a part, if there is room for a frame and a step in it.
    """
    more = max(1, (length - 1) // step) * step
    starts = range(1 + more, x.shape[2], more)
    return [x[:, :, : 1 + more], *(x[:, :, start : start + more] for start in starts)]


def by_parts(network: Callable[[Tensor, Carry], Tensor], parts: Sequence[Tensor], length: int) -> Tensor:
    """Return what a network makes of a clip `[B, channels, frames, ...]`, computed from one of its parts at a time.

    Args:
        length: frames of the result.
    """
    out, end, carry = None, 0, Carry()
    for number in enough(range(len(parts)), parts[0]):
        carry.is_first, carry.is_last = number == 0, number + 1 == len(parts)
        part = network(parts[number], carry)
        if out is None:
            out = part.new_empty(*part.shape[:2], length, *part.shape[3:])
        start, end = end, end + part.shape[2]
        out[:, :, start:end] = part
    assert out is not None, "there is a part"
    return out


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


def through(layers: Sequence[nn.Module], x: Tensor, carry: Carry | None = None) -> Tensor:
    """Return what layers, one after the other, make of `x`; unlike `nn.Sequential`, it keeps no input of an earlier."""
    for layer in layers:
        x = layer(x) if isinstance(layer, SpaceBlock | Attention) else layer(x, carry)
    return x


def by_strips(layers: Sequence[nn.Module], x: Tensor, largest: int, reach: int, carry: Carry | None = None) -> Tensor:
    """Return what layers make of `x`, computed from a strip of rows at a time.

    Args:
        largest: elements of the largest tensor that they make for each row and column of a frame of `x`.
        reach: rows above and below, even in number, that a row's result depends on.
    """
    if not in_parts():
        return through(layers, x, carry)
    height = x.shape[2]
    rows = max(STRIP // (x.shape[1] * x.shape[3] * largest) - 2 * reach, reach) // 2 * 2
    if carry is not None:
        rows = carry.rows.setdefault(layers[0], rows)
    if rows >= height:
        return through(layers, x, carry)
    out = None
    for top in enough(range(0, height, rows), x):
        start, end = max(0, top - reach), min(top + rows + reach, height)
        if carry is not None:
            carry.strip = Strip(start, top, min(top + rows, height), end, height)
        part = through(layers, x[:, :, start:end], carry)
        if out is None:
            scale = part.shape[2] / (end - start)
            out = part.new_empty(*part.shape[:2], int(height * scale), *part.shape[3:])
        first, last = int(top * scale), int(min(top + rows, height) * scale)
        skipped = int(start * scale)
        out[:, :, first:last] = part[:, :, first - skipped : last - skipped]
    if carry is not None:
        carry.end_strips()
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
        out = linear(x[:, :count], self.weight[:, :, 0], self.bias)
        for k in range(1, KERNEL):
            out += linear(x[:, k : k + count], self.weight[:, :, k])
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
        self.border = border
        self.norm1 = layer_norm(channels)
        self.conv1 = conv()
        self.norm2 = layer_norm(channels)
        self.conv2 = conv()
        if not space:
            for parameter in self.conv2.parameters():  # before training, time passes through, as in the authors' code
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        h = continued(activated(self.norm1, x), KERNEL - 1, self.border, self.conv1, carry)
        h = continued(activated(self.norm2, self.conv1(h)), KERNEL - 1, self.border, self.conv2, carry)
        return x + self.conv2(h)


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
        self.border = border
        self.conv = SpaceTimeConv(channels, channels, stride=2)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        # Of three frames in steps of two, one lies outside: before the first or, with zeros around, after the last.
        return by_frames(self._mixed, continued(x, KERNEL - 2, self.border, self.conv, carry), KERNEL, 2)

    def _mixed(self, x: Tensor) -> Tensor:
        last = x.shape[1] - KERNEL + 1
        mean = (x[:, :last:2] + x[:, 1 : 1 + last : 2] + x[:, 2 : 2 + last : 2]) / KERNEL
        share = torch.sigmoid(self.mix)
        return share * mean + (1 - share) * self.conv(x)


class TimeUpsample(nn.Module):
    """Double the frames: by repetition, or with copies before the first by interpolation, mixed with a convolution.

    The first `first` frames, which the first frame of the signal fills with copies of itself, are interpolated apart
    from the rest. The second half of a frame depends on the frame after it: that of a part's last frame is returned
    with the next part.
    """

    def __init__(self, channels: int, border: Border, first: int):
        super().__init__()
        self.border, self.first = border, first
        self.conv = SpaceTimeConv(channels, channels)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        doubled = continued(self._doubled(x, carry), KERNEL - 1, self.border, self.conv, carry)
        return by_frames(self._mixed, doubled, KERNEL)

    def _doubled(self, x: Tensor, carry: Carry | None) -> Tensor:
        if self.border != "copies before":
            return x.repeat_interleave(2, dim=1)
        if carry is None or carry.is_first:
            doubled = torch.cat([interpolated(x[:, : self.first]), interpolated(x[:, self.first :])], dim=1)
        else:
            doubled = interpolated(torch.cat([carry.earlier(self), x], dim=1))[:, 1:]
        if carry is None or carry.is_last:
            return doubled
        carry.keep(self, x[:, -1:])
        return doubled[:, :-1]

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

    def __init__(self, channels: int, time: nn.Module | None):
        super().__init__()
        self.space = SpaceConv(channels, channels, stride=2)
        self.time = time

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        x = by_frames(lambda frames: self.space(F.pad(frames, (0, 0, 0, 1, 0, 1))), x)
        return x if self.time is None else self.time(x, carry)


class Upsample(nn.Module):
    """Double the sides, nearest neighbours then a convolution, and with `time` the frames."""

    def __init__(self, channels: int, time: nn.Module | None):
        super().__init__()
        self.space = SpaceConv(channels, channels)
        self.time = time

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        x = by_frames(self._doubled, x)
        return x if self.time is None else self.time(x, carry)

    def _doubled(self, x: Tensor) -> Tensor:
        return in_space(partial(convolve_doubled, self.space), x)


class Stem(SpaceTimeConv):
    """A first or last convolution, which pads the frames itself."""

    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__(channels_in, channels_out)
        self.border = border

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        return super().forward(continued(x, KERNEL - 1, self.border, self, carry))


class Head(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__()
        self.norm = layer_norm(channels_in)
        self.conv = Stem(channels_in, channels_out, border)

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        return self.conv(activated(self.norm, x), carry)
