"""Emu3's vision tokenizer: video or an image to one of 32,768 codes per 8 x 8 pixels and four frames, and back.

Paper: Emu3: Next-Token Prediction is All You Need (arXiv 2409.18869), after SBER-MoVQGAN.
Reference: baaivision/Emu3 at f6ea9aa.
VQGAN's blocks see each frame alone; time is halved twice among the four channels of the latent. Every norm of the
decoder is scaled and shifted by the code vectors at its position, after their own way through the convolutions in time.
Those have two frames of zeros before the first, whatever their kernel. An image is a clip of four equal frames, of
which the first is decoded.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.vqgan import EncoderTrunk, Upsample, activated, attended, group_norm
from zoo.modalities.image import Interpolation
from zoo.quantizers import VectorQuantizer
from zoo.registry import FileSource, HubSource, register
from zoo.spec import TokenizerSpec
from zoo.streaming import IN_WINDOWS
from zoo.tokenizer import Tokenizer

TIME, STEP = 4, 8  # frames and pixels a side of a code
DIM = 4  # channels of a code vector
FEW = 2**26  # elements of the largest tensor of the frames that are computed at once


def few_by_few(function: Callable[[Tensor], Tensor], frames: Tensor, largest: int) -> Tensor:
    """Return `function(frames)`, computed for a few frames at a time unless a gradient or a graph needs all.

    largest: elements of the largest tensor that it makes for each frame.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(frames)
    return torch.cat([function(few) for few in frames.split(max(1, FEW // largest))])


class TimeConv(nn.Conv3d):
    """A convolution in time and space of `[B, channels, T, h, w]`, with two frames of zeros before the first."""

    def __init__(self, kernel: tuple[int, int, int], stride: int = 1):
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(DIM, DIM, kernel, stride=(stride, 1, 1), padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 0, 0, 0, 2, 0)))


class TimeBlock(nn.Module):
    """A residual block in time and space, whose norms have the statistics of the training data."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(DIM)
        self.conv1 = TimeConv((3, 3, 3))
        self.norm2 = nn.BatchNorm3d(DIM)
        self.conv2 = TimeConv((3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        return x + self.conv2(activated(self.norm2, h))


class Encoder(nn.Module):
    """`[B, 3, T, H, W]` to `[B, dim, T / 4, H / 8, W / 8]`."""

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int):
        super().__init__()
        channels = width * multipliers[-1]
        norm, conv = group_norm(channels), nn.Conv2d(channels, DIM, 3, padding=1)
        head = nn.Sequential(OrderedDict(norm=norm, activation=nn.SiLU(), conv=conv))
        self.width = width
        self.space = nn.Sequential(OrderedDict(trunk=EncoderTrunk(width, multipliers, num_blocks), head=head))
        self.halvings = nn.ModuleList(TimeConv((4, 3, 3), stride=2) for _ in range(2))
        self.time = nn.Sequential(*(TimeBlock() for _ in range(num_blocks)))
        self.project = TimeConv((3, 1, 1))

    def forward(self, video: Tensor, copies: int = 1) -> Tensor:
        """copies: times that each frame follows itself."""
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        frames = few_by_few(self.space, frames, self.width * frames.shape[2] * frames.shape[3])
        x = rearrange(frames, "(b t) c h w -> b c t h w", b=video.shape[0]).repeat_interleave(copies, dim=2)
        for halve in self.halvings:
            x = F.silu(halve(x))
        return self.project(self.time(x))


class ConditionedNorm(nn.Module):
    """A group norm, scaled and shifted at each position by a linear function of the condition there.

    A position of the condition stands for `step` x `step` pixels.
    """

    def __init__(self, channels: int, step: int):
        super().__init__()
        self.step = step
        self.norm = group_norm(channels)
        self.scale = nn.Conv2d(DIM, channels, 1)
        self.shift = nn.Conv2d(DIM, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        # The pixels of a position share its scale and shift, which are not repeated in memory.
        scale, shift = (rearrange(part(condition), "b c h w -> b c h 1 w 1") for part in (self.scale, self.shift))
        h = rearrange(self.norm(x), "b c (h i) (w j) -> b c h i w j", i=self.step, j=self.step)
        return torch.addcmul(shift, h, scale).reshape(x.shape)


class ConditionedBlock(nn.Module):
    """A residual block with conditioned norms."""

    def __init__(self, channels_in: int, channels_out: int, step: int):
        super().__init__()
        self.norm1 = ConditionedNorm(channels_in, step)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = ConditionedNorm(channels_out, step)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, condition)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h, condition)))


class ConditionedAttention(nn.Module):
    """Attention of one head over the positions of a frame, with a conditioned norm."""

    def __init__(self, channels: int, step: int):
        super().__init__()
        self.norm = ConditionedNorm(channels, step)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.out(attended(self.norm(x, condition), self.q, self.k, self.v))


class ConditionedLevel(nn.Module):
    """Residual blocks at one resolution, each followed by attention if `attention`, then `resample`."""

    def __init__(
        self, channels_in: int, channels_out: int, num_blocks: int, step: int, attention: bool, resample: nn.Module
    ):
        super().__init__()
        inputs = [channels_in, *[channels_out] * (num_blocks - 1)]
        self.blocks = nn.ModuleList(ConditionedBlock(channels, channels_out, step) for channels in inputs)
        self.attentions = nn.ModuleList(ConditionedAttention(channels_out, step) for _ in inputs if attention)
        self.resample = resample

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, condition)
            if self.attentions:
                x = self.attentions[i](x, condition)
        return self.resample(x)


class SpaceDecoder(nn.Module):
    """Frames of a latent and of its condition, `[B, 2 * dim, h, w]`, to images `[B, 3, H, W]`.

    Levels are numbered from the latent.
    """

    channels_first = True

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int):
        super().__init__()
        outputs = [width * multiplier for multiplier in reversed(multipliers)]
        channels = [outputs[0], *outputs]
        last = len(outputs) - 1
        self.stem = nn.Conv2d(DIM, channels[0], 3, padding=1)
        self.mid = nn.ModuleList(
            [
                ConditionedBlock(channels[0], channels[0], 1),
                ConditionedAttention(channels[0], 1),
                ConditionedBlock(channels[0], channels[0], 1),
            ]
        )
        self.levels = nn.ModuleList(
            ConditionedLevel(c_in, c_out, num_blocks, 2**i, i == 0, nn.Identity() if i == last else Upsample(c_out))
            for i, (c_in, c_out) in enumerate(pairwise(channels))
        )
        self.norm = ConditionedNorm(channels[-1], 2**last)
        self.head = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, both: Tensor) -> Tensor:
        x, condition = both.chunk(2, dim=1)
        x = self.stem(x)
        for layer in (*self.mid, *self.levels):
            x = layer(x, condition)
        return self.head(F.silu(self.norm(x, condition)))


class Decoder(nn.Module):
    """Code vectors `[B, dim, t, h, w]` to `[B, 3, 4 t, 8 h, 8 w]`."""

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int):
        super().__init__()
        self.project = TimeConv((3, 1, 1))
        self.time = nn.Sequential(*(TimeBlock() for _ in range(num_blocks)))
        self.doublings = nn.ModuleList(TimeConv((3, 3, 3)) for _ in range(2))
        self.space = SpaceDecoder(width, multipliers, num_blocks + 1)
        # The first block at full resolution has the channels of the level before.
        self.largest = width * multipliers[min(1, len(multipliers) - 1)] * 4 ** (len(multipliers) - 1)

    def forward(self, latent: Tensor, most: int | None = None) -> Tensor:
        """most: number of the first frames that are wanted; None: all."""
        # The decoder's input and its condition take the same way through time.
        x = self.time(torch.cat([self.project(latent), latent]))
        for double in self.doublings:
            x = F.silu(double(x.repeat_interleave(2, dim=2)))
        both = rearrange(x[:, :, :most], "(s b) c t h w -> (b t) (s c) h w", s=2)
        frames = few_by_few(self.space, both, self.largest * both.shape[2] * both.shape[3])
        return rearrange(frames, "(b t) c h w -> b c t h w", b=latent.shape[0])


class Emu3Video(Tokenizer):
    """Video tokenizer with one codebook and a decoder that is conditioned on the code vectors.

    Video `[B, 3, T, H, W]` in [0, 1]; codes `[B, 1, ceil(T / 4), h, w]` for each window of `spec.chunk_frames`. The
    authors code four frames at a time; those of a longer window are coupled.

    `preprocess(resolution=)` resizes frames of more than `resolution`² pixels, or less than a quarter of them, to these
    bounds, with sides of multiples of 8, and cuts nothing off. The authors have 1024.

    Args:
        width: channels at full resolution. multipliers: channels of each resolution as multiples of `width`, finest
            first. num_blocks: residual blocks per resolution of the encoder, where the decoder has one more,
            and in time of both.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation: Interpolation = "bicubic"
    cannot_stream = IN_WINDOWS
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        width: int = 256,
        multipliers: tuple[int, ...] = (1, 2, 2, 4),
        num_blocks: int = 2,
    ):
        super().__init__(spec)
        self.encoder = Encoder(width, tuple(multipliers), num_blocks)
        self.quantizer = VectorQuantizer(DIM, *spec.codebook_sizes)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks)

    @staticmethod
    def target_size(height: int, width: int, resolution: int) -> tuple[int, int]:
        """Return the height and width to which an image or a frame of `height` by `width` is resized.

        Raises:
            InputError: a side of less than 8 pixels, or more than five times as long as the other.
        """
        if min(height, width) < STEP or max(height, width) > 5 * min(height, width):
            raise InputError(
                f"expected sides of at least 8 pixels, none over five times the other, got {height}x{width}"
            )
        most, least = resolution**2, resolution**2 / 4
        near = [round(side / STEP) * STEP for side in (height, width)]
        if math.prod(near) > most:
            factor = math.sqrt(height * width / most)
            near = [math.floor(side / factor / STEP) * STEP for side in (height, width)]
        elif math.prod(near) < least:
            factor = math.sqrt(least / (height * width))
            near = [math.ceil(side * factor / STEP) * STEP for side in (height, width)]
        return max(STEP, near[0]), max(STEP, near[1])


class Emu3Image(Emu3Video):
    """The same network for images: `[B, 3, H, W]` in [0, 1]; codes `[B, 1, h, w]`. All else is as in `Emu3Video`."""

    cannot_stream = "an image is encoded as a whole"

    def to_latent(self, signal: Tensor) -> Tensor:
        return self.encoder(signal[:, :, None], TIME)[:, :, 0]

    def from_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(latent[:, :, None], 1)[:, :, 0]


Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]


def matrix_to_kernel(weight: Tensor) -> Tensor:
    """Return a linear layer as a convolution of one position."""
    return weight[:, :, None, None] if weight.ndim == 2 else weight


def rules(port: bool) -> list[Rule]:
    """Return the published names of the tensors; those of transformers' port are other ones at some places."""
    down, up, mid = ("down_block.down", "up_block.up", "middle_block") if port else ("down", "up", "mid")
    trunk = "encoder.space.trunk"
    space = "decoder.space"
    found: list[Rule] = []

    def norms(published: str, ours: str) -> list[Rule]:
        parts = (("norm_layer.", "norm."), ("conv_y.", "scale."), ("conv_b.", "shift."))
        return [(f"{published}.{their}", f"{ours}.{our}") for their, our in parts]

    def attention(published: str, norm: str, ours: str, conditioned: bool) -> list[Rule]:
        suffix = "_proj" if port else ""
        linear = [(f"{published}.{part}{suffix}.", f"{ours}.{part}.", matrix_to_kernel) for part in "qkv"]
        out = (f"{published}.{'out_proj' if port else 'proj_out'}.", f"{ours}.out.", matrix_to_kernel)
        return [*linear, out, *(norms(norm, f"{ours}.norm") if conditioned else [(f"{norm}.", f"{ours}.norm.")])]

    def block(published: str, ours: str, conditioned: bool) -> list[Rule]:
        conditions = [rule for i in "12" for rule in norms(f"{published}.norm{i}", f"{ours}.norm{i}")]
        shortcut = (f"{published}.nin_shortcut.", f"{ours}.shortcut.")
        return [*(conditions if conditioned else []), shortcut, (f"{published}.", f"{ours}.")]

    def level(published: str, ours: str, conditioned: bool) -> list[Rule]:
        norm = f"{published}.attn_norms.{{j}}" if port else f"{published}.attn.{{j}}.norm"
        sample = "upsample" if conditioned else "downsample"
        return [
            *block(f"{published}.block.{{j}}", f"{ours}.blocks.{{j}}", conditioned),
            *attention(f"{published}.attn.{{j}}", norm, f"{ours}.attentions.{{j}}", conditioned),
            (f"{published}.{sample}.", f"{ours}.resample."),
        ]

    found += level(f"encoder.{down}.{{i}}", f"{trunk}.levels.{{i}}", conditioned=False)
    for i in range(4):  # published levels of the decoder count from the finest, ours from the coarsest
        found += level(f"decoder.{up}.{3 - i}", f"{space}.levels.{i}", conditioned=True)
    for published, ours, conditioned in (
        (f"encoder.{mid}", f"{trunk}.mid", False),
        (f"decoder.{mid}", f"{space}.mid", True),
    ):
        norm = f"{published}.attn_norm" if port else f"{published}.attn_1.norm"
        found += block(f"{published}.block_1", f"{ours}.0", conditioned)
        found += attention(f"{published}.attn_1", norm, f"{ours}.1", conditioned)
        found += block(f"{published}.block_2", f"{ours}.2", conditioned)
    for side, resampling in (("encoder", "halvings"), ("decoder", "doublings")):
        found += [(f"{side}.time_conv.{{i}}.conv.conv.", f"{side}.{resampling}.{{i}}.")]
        found += [(f"{side}.time_res_stack.{{i}}.conv{j}.conv.", f"{side}.time.{{i}}.conv{j}.") for j in (1, 2)]
        found += [(f"{side}.time_res_stack.", f"{side}.time.")]
    return [
        *found,
        ("encoder.conv_in.", f"{trunk}.stem."),
        ("encoder.norm_out.", "encoder.space.head.norm."),
        ("encoder.conv_out.", "encoder.space.head.conv."),
        ("quant_conv.conv.", "encoder.project."),
        ("quantize.embedding.weight", "quantizer.codebook"),
        ("post_quant_conv.conv.", "decoder.project."),
        ("decoder.conv_in.", f"{space}.stem."),
        *norms("decoder.norm_out", f"{space}.norm"),
        ("decoder.conv_out.", f"{space}.head."),
    ]


CHECKPOINT, PORT = KeyMap(*rules(port=False)), KeyMap(*rules(port=True))
FILES = HubSource("BAAI/Emu3-VisionTokenizer", "model.safetensors", keys=CHECKPOINT), FileSource(keys=PORT)

VIDEO = register(
    "emu3-vision-video",
    Emu3Video,
    spec=TokenizerSpec(
        modality="video",
        quantizer="vq",
        codebook_sizes=(32768,),
        downsample=(TIME, STEP, STEP),
        channels=3,
        chunk_frames=TIME,
        code_license="Apache-2.0",
        weights_license="Apache-2.0",
        paper="https://arxiv.org/abs/2409.18869",
        source="https://github.com/baaivision/Emu3",
    ),
    hub=FILES,
    card="emu3-vision",
)
register(
    "emu3-vision",
    Emu3Image,
    spec=dataclasses.replace(
        VIDEO.spec,
        name="emu3-vision",
        modality="image",
        downsample=(STEP, STEP),
        chunk_frames=None,
        resolution=(512, 512),
    ),
    hub=FILES,
    card="emu3-vision",
)
