"""SEANet, the encoder and decoder of EnCodec (arXiv 2210.13438), not causal: strided convolutions and an LSTM.

Everything but the LSTM sees a bounded neighbourhood, so that long audio runs through in chunks whose overlap makes them
exact; the LSTM goes from chunk to chunk with its state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.lstm import LSTM, remember
from zoo.layers.overlap import each_chunk, joined
from zoo.layers.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d
from zoo.tracing import larger

Activation = Callable[[int], nn.Module]  # makes the activation for a number of channels
EDGE = 3  # steps on either side that a convolution of 7 sees


def elu(channels: int) -> nn.Module:
    """Return the activation of EnCodec, which has no parameters."""
    return nn.ELU()


def in_place(activation: nn.Module) -> nn.Module:
    """Return an activation that leaves its result in the memory of what it is given, if it can."""
    if isinstance(activation, nn.ELU):
        activation.inplace = True
    return activation


class PaddedConv(nn.Module):
    """Weight-normalised convolution that reflects its input at both ends and returns `ceil(length / stride)` steps."""

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = WeightNormConv1d(channels_in, channels_out, kernel_size, stride)
        self.stride = stride
        self.right = (kernel_size - stride) // 2
        self.left = kernel_size - stride - self.right

    def forward(self, x: Tensor) -> Tensor:
        if self.left + self.right == 0 and self.stride == 1:
            return self.conv(x)
        length = x.shape[-1]
        right = self.right + -length % self.stride
        # Reflection needs more samples than it adds: short input gets zeros first, which are cut off again.
        zeros = larger(0, larger(self.left, right) + 1 - length)
        if not isinstance(zeros, int) or zeros > 0:
            x = F.pad(x, (0, zeros))
        x = F.pad(x, (self.left, right), mode="reflect")
        return self.conv(x.narrow(-1, 0, self.left + length + right))


class CutConvTranspose(nn.Module):
    """Weight-normalised transposed convolution of a kernel of two strides, cut to `length * stride` steps."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv = WeightNormConvTranspose1d(channels_in, channels_out, 2 * stride, stride)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).narrow(-1, self.stride - self.stride // 2, x.shape[-1] * self.stride)


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, activation: Activation = elu):
        super().__init__()
        self.shortcut = PaddedConv(channels, channels, 1)
        self.act1 = activation(channels)
        self.conv1 = PaddedConv(channels, channels // 2, 3)
        self.act2 = in_place(activation(channels // 2))
        self.conv2 = PaddedConv(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.act2(self.conv1(self.act1(x))))
        h += self.shortcut(x)
        return h


class Encoder(nn.Module):
    """`[B, 1, samples]` to `[B, dim, frames]`, one frame for each product of the strides, the last one partly filled.

    Args:
        strides: of the stages, first to last.
        width: channels of the first stage; each stage doubles them.
        dim: channels of a frame.
        bidirectional: whether the LSTM runs both ways; its channels are then twice as many.
        activation: makes an activation for a number of channels.
    """

    def __init__(
        self,
        strides: tuple[int, ...],
        width: int,
        dim: int,
        *,
        bidirectional: bool = False,
        activation: Activation = elu,
    ):
        super().__init__()
        self.strides = strides
        self.stem = PaddedConv(1, width, 7)
        self.units = nn.ModuleList()
        self.acts = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        for stride in strides:
            self.units.append(ResidualUnit(width, activation))
            self.acts.append(in_place(activation(width)))
            self.downsamples.append(PaddedConv(width, 2 * width, 2 * stride, stride))
            width *= 2
        self.lstm = LSTM(width, num_layers=2, bidirectional=bidirectional)
        width *= 2 if bidirectional else 1
        self.act_out = activation(width)
        self.head = PaddedConv(width, dim, 7)

    @property
    def context(self) -> int:
        """Samples on either side that a frame's convolutions before the LSTM see, at least."""
        rate, samples = 1, EDGE
        for stride in self.strides:
            samples += rate * (1 + stride)
            rate *= stride
        return samples

    def forward(self, audio: Tensor, chunk_frames: int) -> Tensor:
        """Encode audio, `chunk_frames` at a time where there are more."""
        hop = math.prod(self.strides)
        halo = math.ceil(self.context / hop)
        frames = (audio.shape[-1] + hop - 1) // hop
        parts = each_chunk(self.downsample, audio, frames, chunk_frames, halo, given=hop)
        x = remember(self.lstm, parts, frames, chunk_frames)
        return joined(each_chunk(lambda part: self.head(self.act_out(part)), x, frames, chunk_frames, EDGE), frames)

    def downsample(self, audio: Tensor) -> Tensor:
        x = self.stem(audio)
        for unit, act, downsample in zip(self.units, self.acts, self.downsamples, strict=True):
            x = downsample(act(unit(x)))
        return x


class Decoder(nn.Module):
    """`[B, dim, frames]` to `[B, 1, samples]`, the product of the strides for each frame.

    Args:
        strides: of the stages, first to last.
        width: channels of the last stage; each stage halves them.
        dim: channels of a frame.
        activation: makes an activation for a number of channels.
    """

    def __init__(self, strides: tuple[int, ...], width: int, dim: int, *, activation: Activation = elu):
        super().__init__()
        self.strides = strides
        width *= 2 ** len(strides)
        self.stem = PaddedConv(dim, width, 7)
        self.lstm = LSTM(width, num_layers=2)
        self.acts = nn.ModuleList()
        self.upsamples = nn.ModuleList()
        self.units = nn.ModuleList()
        for stride in strides:
            self.acts.append(activation(width))
            self.upsamples.append(CutConvTranspose(width, width // 2, stride))
            width //= 2
            self.units.append(ResidualUnit(width, activation))
        self.act_out = activation(width)
        self.head = PaddedConv(width, 1, 7)

    @property
    def context(self) -> int:
        """Frames on either side that a sample's convolutions after the LSTM see, at most."""
        steps = EDGE
        for stride in reversed(self.strides):
            steps = math.ceil((steps + 1) / stride) + 1
        return steps

    def forward(self, latent: Tensor, chunk_frames: int) -> Tensor:
        """Decode a latent, `chunk_frames` at a time where there are more."""
        hop, frames = math.prod(self.strides), latent.shape[-1]
        parts = each_chunk(self.stem, latent, frames, chunk_frames, EDGE)
        x = remember(self.lstm, parts, frames, chunk_frames)
        return joined(each_chunk(self.upsample, x, frames, chunk_frames, self.context, made=hop), frames * hop)

    def upsample(self, x: Tensor) -> Tensor:
        for act, upsample, unit in zip(self.acts, self.upsamples, self.units, strict=True):
            x = unit(upsample(act(x)))
        return self.head(self.act_out(x))


# The names of the layers in EnCodec's code, for the key maps of systems that took it over


def encoder_rules(model: str, conv: str) -> list[tuple[str, str]]:
    """Return rules for `encoder`: `model` holds its layers by number, `conv` is what a layer names its convolution."""
    rules = [(f"{model}.0.{conv}", "encoder.stem.")]
    for stage in range(4):
        rules += unit_rules(f"{model}.{1 + 3 * stage}", conv, f"encoder.units.{stage}")
        rules.append((f"{model}.{2 + 3 * stage}.", f"encoder.acts.{stage}."))
        rules.append((f"{model}.{3 + 3 * stage}.{conv}", f"encoder.downsamples.{stage}."))
    return [
        *rules,
        (f"{model}.13.lstm.", "encoder.lstm."),
        (f"{model}.14.", "encoder.act_out."),
        (f"{model}.15.{conv}", "encoder.head."),
    ]


def decoder_rules(model: str) -> list[tuple[str, str]]:
    """Return rules for `decoder`, whose layers `model` holds by number."""
    rules = [(f"{model}.0.conv.", "decoder.stem."), (f"{model}.1.lstm.", "decoder.lstm.")]
    for stage in range(4):
        rules.append((f"{model}.{2 + 3 * stage}.", f"decoder.acts.{stage}."))
        rules.append((f"{model}.{3 + 3 * stage}.convtr.convtr.", f"decoder.upsamples.{stage}.conv."))
        rules += unit_rules(f"{model}.{4 + 3 * stage}", "conv.", f"decoder.units.{stage}")
    return [*rules, (f"{model}.14.", "decoder.act_out."), (f"{model}.15.conv.", "decoder.head.")]


def unit_rules(published: str, conv: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f"{published}.shortcut.{conv}", f"{ours}.shortcut."),
        (f"{published}.block.0.", f"{ours}.act1."),
        (f"{published}.block.1.{conv}", f"{ours}.conv1."),
        (f"{published}.block.2.", f"{ours}.act2."),
        (f"{published}.block.3.{conv}", f"{ours}.conv2."),
    ]
