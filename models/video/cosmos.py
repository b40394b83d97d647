"""Cosmos DV: causal video to codes and back, through Haar wavelets in time and space.

Paper: Cosmos World Foundation Model Platform for Physical AI (arXiv 2501.03575).
Reference: NVIDIA/Cosmos-Tokenizer at 3584ae7.
Frames are images `[B, frames, channels, height, width]`: what works in space (3 x 3 convolutions, norms, attention)
takes them one by one, and what works in time (convolutions over three frames, attention) looks back only. The first
frame has a step of the grid to itself, so a single image is a video of one frame. As in Cosmos DI, attention at a
resolution of 32 is configured but never built: there is attention in the middle only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, inside
from zoo.layers.haar import haar, inverse_haar
from zoo.layers.onednn import Conv2d, applies, product_of_columns
from zoo.quantizers import FSQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.streaming import IN_WINDOWS
from zoo.tokenizer import Tokenizer

WAVELET_LEVELS = 2
TIME_HEIGHT_WIDTH = (2, 3, 4)  # axes of `[B, channels, frames, height, width]`
BEFORE_FIRST = 2**WAVELET_LEVELS - 1  # copies of the first frame before it, so that it fills a patch by itself

Strides = tuple[tuple[int, int], ...]


def repeat_first(x: Tensor, count: int) -> Tensor:
    """Return the frames with `count` more copies of the first before it."""
    return torch.cat([x[:, :1].expand(-1, count, -1, -1, -1), x], dim=1)


class FrameNorm(nn.GroupNorm):
    """Normalisation of each frame over all of its channels and positions."""

    def __init__(self, channels: int):
        super().__init__(1, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SpaceConv(Conv2d):
    """A convolution of each frame."""

    channels_first = True

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.bias is not None
        nn.init.zeros_(self.bias)  # random biases of so many convolutions in a row would drown the signal
        if self.padding == (1, 1):
            # Before training, a position depends little on its neighbours, so that a code describes its own pixels.
            with torch.no_grad():
                self.weight.mul_(0.1)
                self.weight[:, :, 1, 1].mul_(30)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class TimeConv(nn.Conv1d):
    """A convolution over a frame and the two before it, at each position; the first frame is repeated at the start."""

    def __init__(self, channels: int, stride: int = 1):
        super().__init__(channels, channels, 3, stride=stride)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.weight.mul_(0.1)
            self.weight[:, :, -1].diagonal().add_(1)  # before training, each frame passes through

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        (kernel,), (stride,) = self.kernel_size, self.stride
        windows = repeat_first(x, kernel - stride).unfold(1, kernel, stride)
        weight = rearrange(self.weight, "o c k -> o (k c)")
        # Three consecutive frames are adjacent in memory: of a single clip, the columns are views.
        if applies(x, weight):
            clips = (rearrange(clip, "t c h w k -> t (k c) (h w)") for clip in windows)
            out = torch.stack([product_of_columns(columns, weight, self.bias) for columns in clips])
            return out.unflatten(3, x.shape[3:])
        columns = rearrange(windows, "b t c h w k -> (b t) (k c) (h w)")
        out = torch.baddbmm(self.bias[:, None], weight.expand(columns.shape[0], -1, -1), columns)
        return rearrange(out, "(b t) c (h w) -> b t c h w", b=x.shape[0], h=x.shape[3])


class Convs(nn.Sequential):
    """A convolution of 3 x 3 in space, then one of three frames in time."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(SpaceConv(channels_in, channels_out, 3, padding=1), TimeConv(channels_out))


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = FrameNorm(channels_in)
        self.conv1 = Convs(channels_in, channels_out)
        self.norm2 = FrameNorm(channels_out)
        self.conv2 = Convs(channels_out, channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = SpaceConv(channels_in, channels_out, 1)
        last = self.conv2[0]
        assert isinstance(last, SpaceConv)
        with torch.no_grad():
            last.weight.mul_(0.2)  # before training, most of the signal passes through

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """One head over the positions of each frame or, if `causal`, over a frame and those before it at each position."""

    def __init__(self, channels: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.norm = FrameNorm(channels)
        self.q = SpaceConv(channels, channels, 1)
        self.k = SpaceConv(channels, channels, 1)
        self.v = SpaceConv(channels, channels, 1)
        self.out = SpaceConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        sequences = "b (h w) t c" if self.causal else "b t (h w) c"
        h = self.norm(x)
        # Contiguous: otherwise the CPU's kernel holds the whole matrix of logits in memory.
        q, k, v = (rearrange(p(h), f"b t c h w -> {sequences}").contiguous() for p in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return x + self.out(rearrange(h, f"{sequences} -> b t c h w", t=x.shape[1], h=x.shape[3]))


class Downsample(nn.Module):
    """Halve the sides and, with `time`, the frames after the first; each by the sum of a convolution and a mean."""

    def __init__(self, channels: int, time: bool):
        super().__init__()
        self.space = SpaceConv(channels, channels, 3, stride=2)
        self.time = TimeConv(channels, stride=2) if time else None
        self.mix = SpaceConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.space(F.pad(x, (0, 1, 0, 1))) + F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
        if self.time is not None:
            x = repeat_first(x, 1)
            x = self.time(x) + (x[:, ::2] + x[:, 1::2]) / 2
        return self.mix(x)


class Upsample(nn.Module):
    """Double the sides and, with `time`, the frames after the first; each by repetition and a convolution."""

    def __init__(self, channels: int, time: bool):
        super().__init__()
        self.time = TimeConv(channels) if time else None
        self.space = SpaceConv(channels, channels, 3, padding=1)
        self.mix = SpaceConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.time is not None:
            x = x.repeat_interleave(2, dim=1)[:, 1:]
            x = x + self.time(x)
        x = F.interpolate(x.flatten(0, 1), scale_factor=2.0, mode="nearest").unflatten(0, x.shape[:2])
        return self.mix(x + self.space(x))


def resample(kind: type[Downsample | Upsample], channels: int, strides: tuple[int, int]) -> nn.Module:
    time, space = strides
    return kind(channels, time == 2) if space == 2 else nn.Identity()


def residual_blocks(count: int, channels_in: int, channels_out: int) -> nn.Sequential:
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.Sequential(*(ResidualBlock(channels, channels_out) for channels in inputs))


def middle(channels: int) -> nn.Sequential:
    attentions = Attention(channels, causal=False), Attention(channels, causal=True)
    return nn.Sequential(ResidualBlock(channels, channels), *attentions, ResidualBlock(channels, channels))


class Encoder(nn.Module):
    """`[B, 3, T, H, W]` to `[B, dim, t, h, w]`."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        downsamples: Strides,
        latent_width: int,
        dim: int,
    ):
        super().__init__()
        channels = [width * multiplier for multiplier in (1, *multipliers)]
        self.stem = Convs(3 * 8**WAVELET_LEVELS, width)
        self.levels = nn.ModuleList(residual_blocks(num_blocks, *pair) for pair in pairwise(channels))
        strides = zip(channels[1:-1], downsamples, strict=True)
        self.downsamples = nn.ModuleList(resample(Downsample, *pair) for pair in strides)
        self.mid = middle(channels[-1])
        self.norm = FrameNorm(channels[-1])
        self.head = Convs(channels[-1], latent_width)
        self.project = SpaceConv(latent_width, dim, 1)
        # Before training, latents reach the quantizer's levels, depend on colour as much as on brightness, and on how
        # bright and how contrasted a frame is, which the norms would remove if there were no biases to compare with.
        first = self.stem[0]
        assert isinstance(first, SpaceConv) and first.bias is not None
        with torch.no_grad():
            self.project.weight.mul_(5)
            by_colour = first.weight.unflatten(1, (-1, 3))
            by_colour.copy_(3 * by_colour - 2 * by_colour.mean(dim=2, keepdim=True)).mul_(14)
            first.bias.normal_(std=0.7)

    def forward(self, video: Tensor) -> Tensor:
        x = repeat_first(video.transpose(1, 2), BEFORE_FIRST).transpose(1, 2)
        x = self.stem(haar(x, TIME_HEIGHT_WIDTH, WAVELET_LEVELS).transpose(1, 2))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](x)
        return self.project(self.head(F.silu(self.norm(self.mid(x))))).transpose(1, 2)


class Decoder(nn.Module):
    """`[B, dim, t, h, w]` to `[B, 3, T, H, W]`."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        upsamples: Strides,
        latent_width: int,
        dim: int,
    ):
        super().__init__()
        channels = [width * multiplier for multiplier in reversed((*multipliers, multipliers[-1]))]
        self.project = SpaceConv(dim, latent_width, 1)
        self.stem = Convs(latent_width, channels[0])
        self.mid = middle(channels[0])
        self.levels = nn.ModuleList(residual_blocks(num_blocks, *pair) for pair in pairwise(channels))
        strides = zip(channels[1:-1], upsamples, strict=True)
        self.upsamples = nn.ModuleList(resample(Upsample, *pair) for pair in strides)
        self.norm = FrameNorm(channels[-1])
        self.head = Convs(channels[-1], 3 * 8**WAVELET_LEVELS)
        # At first the output is nearly grey. If it were far off, the first steps would push all latents beyond the
        # quantizer's levels.
        with torch.no_grad():
            for weight in (conv.weight for conv in self.head if isinstance(conv, SpaceConv | TimeConv)):
                weight.mul_(0.3)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.stem(self.project(latent.transpose(1, 2))))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.upsamples):
                x = self.upsamples[i](x)
        x = self.head(F.silu(self.norm(x))).transpose(1, 2)
        return inverse_haar(x, TIME_HEIGHT_WIDTH, WAVELET_LEVELS)[:, :, BEFORE_FIRST:]


class CosmosDV(Tokenizer):
    """Causal video tokenizer on wavelet coefficients with finite scalar quantization.

    Video `[B, 3, T, H, W]` in [0, 1]; codes `[B, 1, t, h, w]`, `t = 1 + ceil((T - 1) / temporal stride)` for each
    window of `spec.chunk_frames`. The first codes of a window can be decoded alone, to the same frames.

    Args:
        downsamples: strides `(time, space)`, 1 or 2, after each level of the encoder but the last; time is halved only
            together with space. upsamples: those of the decoder, first to last.
        width: channels after the wavelets. multipliers: channels of each level as multiples of `width`, finest first.
        num_blocks: residual blocks per level of the encoder; the decoder has one more.
        latent_width: channels between the convolutions and the code. levels: levels of each channel of the quantizer.
    """

    input_mean = 0.5
    input_std = 0.5
    cannot_stream = IN_WINDOWS
    small: ClassVar = {"width": 24, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        downsamples: Strides,
        upsamples: Strides,
        width: int = 128,
        multipliers: tuple[int, ...] = (2, 4, 4),
        num_blocks: int = 2,
        latent_width: int = 16,
        levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5),
    ):
        super().__init__(spec)
        self.encoder = Encoder(width, tuple(multipliers), num_blocks, downsamples, latent_width, len(levels))
        self.quantizer = FSQ(levels)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks + 1, upsamples, latent_width, len(levels))


def without_time(kernel: Tensor) -> Tensor:
    return kernel.squeeze(2) if kernel.ndim == 5 else kernel


def without_space(kernel: Tensor) -> Tensor:
    return kernel.squeeze((3, 4)) if kernel.ndim == 5 else kernel


BLOCK = (
    ("norm1.norm.", "norm1."),
    ("conv1.0.conv3d.", "conv1.0.", without_time),
    ("conv1.1.conv3d.", "conv1.1.", without_space),
    ("norm2.norm.", "norm2."),
    ("conv2.0.conv3d.", "conv2.0.", without_time),
    ("conv2.1.conv3d.", "conv2.1.", without_space),
    ("nin_shortcut.conv3d.", "shortcut.", without_time),
)
ATTENTION = (
    ("norm.norm.", "norm."),
    ("q.conv3d.", "q.", without_time),
    ("k.conv3d.", "k.", without_time),
    ("v.conv3d.", "v.", without_time),
    ("proj_out.conv3d.", "out.", without_time),
)
DOWNSAMPLE = (
    ("conv1.conv3d.", "space.", without_time),
    ("conv2.conv3d.", "time.", without_space),
    ("conv3.conv3d.", "mix.", without_time),
)
UPSAMPLE = (
    ("conv1.conv3d.", "time.", without_space),
    ("conv2.conv3d.", "space.", without_time),
    ("conv3.conv3d.", "mix.", without_time),
)
ENDS = (
    ("conv_in.0.conv3d.", "stem.0.", without_time),
    ("conv_in.1.conv3d.", "stem.1.", without_space),
    ("norm_out.norm.", "norm."),
    ("conv_out.0.conv3d.", "head.0.", without_time),
    ("conv_out.1.conv3d.", "head.1.", without_space),
)


CHECKPOINT = KeyMap(
    *inside("encoder.down.{i}.block.{j}.", "encoder.levels.{i}.{j}.", BLOCK),
    *inside("encoder.down.{i}.downsample.", "encoder.downsamples.{i}.", DOWNSAMPLE),
    # Published levels of the decoder count from the finest, ours from the first that is run.
    *(
        rule
        for i in range(3)
        for rule in inside(f"decoder.up.{2 - i}.block.{{j}}.", f"decoder.levels.{i}.{{j}}.", BLOCK)
    ),
    *(rule for i in range(2) for rule in inside(f"decoder.up.{2 - i}.upsample.", f"decoder.upsamples.{i}.", UPSAMPLE)),
    *(
        rule
        for side in ("encoder", "decoder")
        for rule in (
            *inside(f"{side}.mid.block_1.", f"{side}.mid.0.", BLOCK),
            *inside(f"{side}.mid.attn_1.0.", f"{side}.mid.1.", ATTENTION),
            *inside(f"{side}.mid.attn_1.1.", f"{side}.mid.2.", ATTENTION),
            *inside(f"{side}.mid.block_2.", f"{side}.mid.3.", BLOCK),
            *inside(f"{side}.", f"{side}.", ENDS),
        )
    ),
    ("quant_conv.conv3d.", "encoder.project.", without_time),
    ("post_quant_conv.conv3d.", "decoder.project.", without_time),
    ignore=(
        # Constants of the architecture, which TorchScript stores as well.
        *("encoder.patcher3d.", "decoder.unpatcher3d.", "quantizer.", "inv_quant."),
        # The authors' class has convolutions for resampling in space and time at every level, used or not.
        *("encoder.down.0.downsample.", "encoder.down.1.downsample."),
        *("decoder.up.1.upsample.", "decoder.up.2.upsample."),
    ),
)


NEITHER, SPACE, BOTH = (1, 1), (1, 2), (2, 2)

DV4X8X8 = register(
    "cosmos-dv-4x8x8",
    CosmosDV,
    spec=TokenizerSpec(
        modality="video",
        quantizer="fsq",
        codebook_sizes=(64000,),
        downsample=(4, 8, 8),
        channels=3,
        chunk_frames=17,
        causal=True,
        code_license="Apache-2.0",
        weights_license="NVIDIA Open Model License",
        paper="https://arxiv.org/abs/2501.03575",
        source="https://github.com/NVIDIA/Cosmos-Tokenizer",
    ),
    config={"downsamples": (SPACE, NEITHER), "upsamples": (SPACE, NEITHER)},
    hub=HubSource("nvidia/Cosmos-0.1-Tokenizer-DV4x8x8", "autoencoder.jit"),
    keys=CHECKPOINT,
    card="cosmos",
    figures={"PSNR, DAVIS (read off a bar chart)": 33.0},
)
register(
    replace(
        DV4X8X8,
        "cosmos-dv-8x8x8",
        downsample=(8, 8, 8),
        config={"downsamples": (BOTH, NEITHER), "upsamples": (NEITHER, BOTH)},
        hub=HubSource("nvidia/Cosmos-0.1-Tokenizer-DV8x8x8", "autoencoder.jit"),
        figures={"PSNR, DAVIS (read off a bar chart)": 32.1},
    )
)
DV8X16X16 = register(
    replace(
        DV4X8X8,
        "cosmos-dv-8x16x16",
        downsample=(8, 16, 16),
        config={"downsamples": (BOTH, SPACE), "upsamples": (SPACE, BOTH)},
        hub=HubSource("nvidia/Cosmos-0.1-Tokenizer-DV8x16x16", "autoencoder.jit"),
        figures={"PSNR, DAVIS (read off a bar chart)": 31.4},
    )
)
register(
    replace(
        DV8X16X16,
        "cosmos-dv-8x16x16-720p",
        hub=HubSource("nvidia/Cosmos-1.0-Tokenizer-DV8x16x16", "autoencoder.jit"),
    )
)
alias("cosmos-dv", "cosmos-dv-4x8x8")

# Trained here, by `trainers/recipes/cosmos-dv-nano.yaml`; ships with the package.
register(
    replace(
        DV4X8X8,
        "cosmos-dv-nano",
        weights_license="ImageNet non-commercial",
        config={"width": 64, "multipliers": (1, 1, 1), "num_blocks": 1},
        weights="weights/cosmos-dv-nano.safetensors",
        card="cosmos-dv-nano",
    )
)
