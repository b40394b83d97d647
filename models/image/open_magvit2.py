"""Open-MAGVIT2: an image to one of 2^18 codes for each 16x16 or 8x8 pixels, the signs of 18 channels, and back.

Paper: Open-MAGVIT2: An Open-source Project Toward Democratizing Auto-Regressive Visual Generation (arXiv 2409.04410).
Reference: TencentARC/SEED-Voken at b9a17ea, src/Open_MAGVIT2.
The network has convolutions only, and no codebook is stored. All normalisations, also the decoder's adaptive ones, use
statistics of the whole image, so a tile that is encoded by itself has other codes than it has as part of the image.
WeTok is the same network with several codes per position. The video model is not covered.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.vqgan import activated
from zoo.quantizers import GroupedLFQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.tracing import values_are_readable


def group_norm(groups: int, channels: int, *, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6, affine=affine)


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, norm_groups: int):
        super().__init__()
        self.norm1 = group_norm(norm_groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm2 = group_norm(norm_groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        return self.shortcut(x) + self.conv2(activated(self.norm2, h))


def residual_blocks(count: int, channels_in: int, channels_out: int, norm_groups: int) -> nn.Sequential:
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.Sequential(*(ResidualBlock(channels, channels_out, norm_groups) for channels in inputs))


class Encoder(nn.Module):
    """`[B, 3, H, W]` to `[B, dim, h, w]`."""

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int, dim: int, norm_groups: int):
        super().__init__()
        channels = [width * multiplier for multiplier in (1, *multipliers)]
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            residual_blocks(num_blocks, c_in, c_out, norm_groups) for c_in, c_out in pairwise(channels)
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in channels[1:-1])
        self.mid = residual_blocks(num_blocks, channels[-1], channels[-1], norm_groups)
        self.norm = group_norm(norm_groups, channels[-1])
        self.head = nn.Conv2d(channels[-1], dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](x)
        return self.head(activated(self.norm, self.mid(x)))


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift come from the latent's mean and spread over positions."""

    def __init__(self, channels: int, dim: int, norm_groups: int):
        super().__init__()
        self.norm = group_norm(norm_groups, channels, affine=False)
        self.gamma = nn.Linear(dim, channels)
        self.beta = nn.Linear(dim, channels)
        # A plain norm at first: PyTorch's own initial values would scale channels by random numbers around zero.
        for linear, start in ((self.gamma, 1.0), (self.beta, 0.0)):
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, start)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        # The variance divides by positions - 1, and the scale is not "1 + scale": both as in the reference.
        variance, mean = torch.var_mean(latent, dim=(2, 3))
        scale, shift = self.gamma((variance + 1e-6).sqrt()), self.beta(mean)
        return scale[..., None, None] * self.norm(x) + shift[..., None, None]


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # The offset inside the 2x2 block is the outer index of the channels, not the inner as in pixel shuffle.
        return rearrange(self.conv(x), "b (dy dx c) h w -> b c (h dy) (w dx)", dy=2, dx=2)


class Decoder(nn.Module):
    """`[B, dim, h, w]` to `[B, 3, H, W]`; with `noise_dim`, noise of so many channels is a second input."""

    channels_first = True

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        dim: int,
        norm_groups: int,
        noise_dim: int,
    ):
        super().__init__()
        channels = [width * multiplier for multiplier in multipliers]
        self.stem = nn.Conv2d(dim + noise_dim, channels[-1], 3, padding=1)
        self.mid = residual_blocks(num_blocks, channels[-1], channels[-1], norm_groups)
        inputs = [*channels[1:], channels[-1]]
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(c, dim, norm_groups) for c in inputs)
        self.levels = nn.ModuleList(
            residual_blocks(num_blocks, c_in, c_out, norm_groups) for c_in, c_out in zip(inputs, channels, strict=True)
        )
        # Level 0 has the resolution of the image: nothing is upsampled after it.
        self.upsamples = nn.ModuleList(Upsample(c) for c in channels[1:])
        self.norm = group_norm(norm_groups, width)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.stem(latent if noise is None else torch.cat([latent, noise], dim=1))
        x = self.mid(x)
        for i in reversed(range(len(self.levels))):
            x = self.levels[i](self.adaptive[i](x, latent))
            if i > 0:
                x = self.upsamples[i - 1](x)
        return self.head(activated(self.norm, x))


class OpenMAGVIT2(Tokenizer):
    """Image tokenizer with lookup-free quantization.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, num_codebooks, h, w]`, one for each equal group of channels,
    whose first channel is the least significant bit. The decoder's statistics need at least two positions, so that an
    image must be larger than one of them.

    Args:
        multipliers: channels of each resolution as multiples of `width`, finest first.
        width: channels at full resolution. num_blocks: residual blocks per resolution. dim: latent channels, each a
            bit.
        norm_groups: groups of channels in every normalisation.
        temperature: temperature of the quantizer's entropy term, in training.
        noise_dim: channels of noise that the decoder takes beside the latent; none in Open-MAGVIT2.
    """

    input_mean = 0.5
    input_std = 0.5
    small: ClassVar = {"width": 32, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        multipliers: tuple[int, ...],
        width: int = 128,
        num_blocks: int = 4,
        dim: int = 18,
        norm_groups: int = 32,
        temperature: float = 0.01,
        noise_dim: int = 0,
    ):
        super().__init__(spec)
        self.encoder = Encoder(width, tuple(multipliers), num_blocks, dim, norm_groups)
        self.quantizer = GroupedLFQ(dim, spec.num_codebooks, temperature=temperature)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks, dim, norm_groups, noise_dim)

    def to_latent(self, signal: Tensor) -> Tensor:
        height, width = self.spec.downsample
        if values_are_readable(signal) and signal.shape[2] <= height and signal.shape[3] <= width:
            # The codes of smaller images could not be decoded. An exported graph works for any size.
            raise InputError(f"{self.spec.name} takes images larger than {height}x{width} pixels")
        return self.encoder(signal)

    def from_latent(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        if latent.shape[-2] * latent.shape[-1] < 2:
            raise InputError(f"{self.spec.name} decodes at least two positions, got a grid of 1 by 1")
        return self.decoder(latent, noise)


def training_checkpoint(*rules: tuple[str, str]) -> KeyMap:
    """Return the key map of a checkpoint of SEED-Voken's training, which has an average of the weights."""
    return KeyMap(
        *rules,
        layout=("state_dict",),
        averaged="model_ema.",
        ignore=("loss.", "model_ema.lossdiscriminator", "model_ema.decay", "model_ema.num_updates"),
    )


CHECKPOINT = training_checkpoint(
    ("encoder.conv_in.", "encoder.stem."),
    ("encoder.down.{i}.block.{j}.nin_shortcut.", "encoder.levels.{i}.{j}.shortcut."),
    ("encoder.down.{i}.block.", "encoder.levels.{i}."),
    ("encoder.down.{i}.downsample.", "encoder.downsamples.{i}."),
    ("encoder.mid_block.", "encoder.mid."),
    ("encoder.norm_out.", "encoder.norm."),
    ("encoder.conv_out.", "encoder.head."),
    ("decoder.conv_in.", "decoder.stem."),
    ("decoder.mid_block.", "decoder.mid."),
    ("decoder.up.{i}.block.{j}.nin_shortcut.", "decoder.levels.{i}.{j}.shortcut."),
    ("decoder.up.{i}.block.", "decoder.levels.{i}."),
    # The published number of an upsampling is the level it starts from, ours the level it leads to.
    *((f"decoder.up.{i + 1}.upsample.conv1.", f"decoder.upsamples.{i}.conv.") for i in range(5)),
    ("decoder.norm_out.", "decoder.norm."),
    ("decoder.conv_out.", "decoder.head."),
)


F8, F16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)
ZERO_SHOT = "zero-shot rFID, ImageNet 256x256"

OPEN_MAGVIT2_256 = register(
    "open-magvit2-256",
    OpenMAGVIT2,
    spec=TokenizerSpec(
        modality="image",
        quantizer="lfq",
        codebook_sizes=(2**18,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2409.04410",
        source="https://github.com/TencentARC/SEED-Voken",
    ),
    config={"multipliers": F16},
    hub=HubSource("TencentARC/Open-MAGVIT2-Tokenizer-256-resolution", "imagenet_256_L.ckpt"),
    keys=CHECKPOINT,
    card="open-magvit2",
    figures={"rFID, ImageNet 256x256": 1.17, "PSNR, ImageNet 256x256": 21.90},
)
register(
    replace(
        OPEN_MAGVIT2_256,
        "open-magvit2-128",
        downsample=(8, 8),
        resolution=(128, 128),
        config={"multipliers": F8},
        hub=HubSource("TencentARC/Open-MAGVIT2-Tokenizer-128-resolution", "imagenet_128_L.ckpt"),
        figures={
            "rFID, ImageNet 128x128": 1.18,
            "PSNR, ImageNet 128x128": 25.08,
            "rFID, ImageNet 256x256": 0.34,
            "PSNR, ImageNet 256x256": 26.19,
        },
    )
)
register(
    replace(
        OPEN_MAGVIT2_256,
        "open-magvit2-pt-262144",
        hub=HubSource("TencentARC/Open-MAGVIT2-Tokenizer-262144-Pretrain", "pretrain256_262144.ckpt"),
        figures={
            ZERO_SHOT: 1.67,
            "zero-shot PSNR, ImageNet 256x256": 22.70,
            "zero-shot SSIM, ImageNet 256x256": 0.64,
            "zero-shot rFID, ImageNet, original size": 0.78,
        },
    )
)
register(
    replace(
        OPEN_MAGVIT2_256,
        "open-magvit2-pt-16384",
        codebook_sizes=(2**14,),
        config={"dim": 14},
        hub=HubSource("TencentARC/Open-MAGVIT2-Tokenizer-16384-Pretrain", "pretrain256_16384.ckpt"),
        figures={
            ZERO_SHOT: 2.55,
            "zero-shot PSNR, ImageNet 256x256": 22.21,
            "zero-shot SSIM, ImageNet 256x256": 0.62,
            "zero-shot rFID, ImageNet, original size": 1.39,
        },
    )
)
alias("open-magvit2", "open-magvit2-128")
