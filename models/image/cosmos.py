"""Cosmos DI: an image to one code per 8 x 8 or 16 x 16 pixels and back, through Haar wavelets.

Paper: Cosmos World Foundation Model Platform for Physical AI (arXiv 2501.03575).
Reference: NVIDIA/Cosmos-Tokenizer at 3584ae7.
Two levels of wavelets take the place of the first convolutions, so that the network starts at a quarter of the sides.
The published configuration asks for attention at a resolution of 32, which the authors compare with 256, 128 and 64
when they build it: there is attention in the middle only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.haar import haar, inverse_haar
from zoo.layers.vqgan import Downsample, Upsample, activated, group_norm, middle, residual_blocks
from zoo.quantizers import FSQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

WAVELET_LEVELS = 2
WIDTH_HEIGHT = (3, 2)  # axes of `[B, channels, height, width]`


class Encoder(nn.Module):
    """`[B, 3, H, W]` to `[B, dim, h, w]`."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        num_downsamples: int,
        latent_width: int,
        dim: int,
    ):
        super().__init__()
        channels = [width * multiplier for multiplier in (1, *multipliers)]
        self.stem = nn.Conv2d(3 * 4**WAVELET_LEVELS, width, 3, padding=1)
        self.levels = nn.ModuleList(residual_blocks(num_blocks, *pair) for pair in pairwise(channels))
        self.downsamples = nn.ModuleList(Downsample(c) for c in channels[1 : 1 + num_downsamples])
        self.mid = middle(channels[-1])
        self.norm = group_norm(channels[-1])
        self.head = nn.Conv2d(channels[-1], latent_width, 3, padding=1)
        self.project = nn.Conv2d(latent_width, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(haar(image, WIDTH_HEIGHT, WAVELET_LEVELS))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](x)
        return self.project(self.head(activated(self.norm, self.mid(x))))


class Decoder(nn.Module):
    """`[B, dim, h, w]` to `[B, 3, H, W]`. It upsamples after its first levels, so most of it runs at H/4 by W/4."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        num_upsamples: int,
        latent_width: int,
        dim: int,
    ):
        super().__init__()
        channels = [width * multiplier for multiplier in reversed((*multipliers, multipliers[-1]))]
        self.project = nn.Conv2d(dim, latent_width, 1)
        self.stem = nn.Conv2d(latent_width, channels[0], 3, padding=1)
        self.mid = middle(channels[0])
        self.levels = nn.ModuleList(residual_blocks(num_blocks, *pair) for pair in pairwise(channels))
        self.upsamples = nn.ModuleList(Upsample(c) for c in channels[1 : 1 + num_upsamples])
        self.norm = group_norm(channels[-1])
        self.head = nn.Conv2d(channels[-1], 3 * 4**WAVELET_LEVELS, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.stem(self.project(latent)))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.upsamples):
                x = self.upsamples[i](x)
        return inverse_haar(self.head(activated(self.norm, x)), WIDTH_HEIGHT, WAVELET_LEVELS)


class CosmosDI(Tokenizer):
    """Image tokenizer on wavelet coefficients with finite scalar quantization.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 1, h, w]`. Attention sees the whole image, so a tile that is
    encoded by itself has other codes than it has as part of the image.

    Args:
        width: channels after the wavelets. multipliers: channels of each level as multiples of `width`, finest first.
        num_blocks: residual blocks per level of the encoder; the decoder has one more.
        latent_width: channels between the convolutions and the code. levels: levels of each channel of the quantizer.
    """

    input_mean = 0.5
    input_std = 0.5
    small: ClassVar = {"width": 32, "num_blocks": 1, "latent_width": 32}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        width: int = 128,
        multipliers: tuple[int, ...] = (2, 4, 4),
        num_blocks: int = 2,
        latent_width: int = 256,
        levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5),
    ):
        super().__init__(spec)
        strides = int(math.log2(spec.downsample[0])) - WAVELET_LEVELS
        self.encoder = Encoder(width, tuple(multipliers), num_blocks, strides, latent_width, len(levels))
        self.quantizer = FSQ(levels)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks + 1, strides, latent_width, len(levels))


CHECKPOINT = KeyMap(
    ("encoder.conv_in.", "encoder.stem."),
    ("encoder.down.{i}.block.{j}.nin_shortcut.", "encoder.levels.{i}.{j}.shortcut."),
    ("encoder.down.{i}.block.", "encoder.levels.{i}."),
    ("encoder.down.{i}.downsample.", "encoder.downsamples.{i}."),
    # Published levels of the decoder count from the finest, ours from the first that is run.
    *((f"decoder.up.{2 - i}.block.{{j}}.nin_shortcut.", f"decoder.levels.{i}.{{j}}.shortcut.") for i in range(3)),
    *((f"decoder.up.{2 - i}.block.", f"decoder.levels.{i}.") for i in range(3)),
    *((f"decoder.up.{2 - i}.upsample.", f"decoder.upsamples.{i}.") for i in range(2)),
    ("decoder.conv_in.", "decoder.stem."),
    *(
        rule
        for side in ("encoder", "decoder")
        for rule in (
            (f"{side}.mid.block_1.", f"{side}.mid.0."),
            (f"{side}.mid.attn_1.proj_out.", f"{side}.mid.1.out."),
            (f"{side}.mid.attn_1.", f"{side}.mid.1."),
            (f"{side}.mid.block_2.", f"{side}.mid.2."),
            (f"{side}.norm_out.", f"{side}.norm."),
            (f"{side}.conv_out.", f"{side}.head."),
        )
    ),
    ("quant_conv.", "encoder.project."),
    ("post_quant_conv.", "decoder.project."),
    # Constants of the architecture, which TorchScript stores as well.
    ignore=("encoder.patcher.", "decoder.unpatcher.", "quantizer.", "inv_quant."),
)


DI8X8 = register(
    "cosmos-di-8x8",
    CosmosDI,
    spec=TokenizerSpec(
        modality="image",
        quantizer="fsq",
        codebook_sizes=(64000,),
        downsample=(8, 8),
        channels=3,
        code_license="Apache-2.0",
        weights_license="NVIDIA Open Model License",
        paper="https://arxiv.org/abs/2501.03575",
        source="https://github.com/NVIDIA/Cosmos-Tokenizer",
    ),
    config={},
    hub=HubSource("nvidia/Cosmos-0.1-Tokenizer-DI8x8", "autoencoder.jit"),
    keys=CHECKPOINT,
    card="cosmos",
    figures={"PSNR, DAVIS (read off a bar chart)": 31.7},
)
register(
    replace(
        DI8X8,
        "cosmos-di-16x16",
        downsample=(16, 16),
        hub=HubSource("nvidia/Cosmos-0.1-Tokenizer-DI16x16", "autoencoder.jit"),
        figures={"PSNR, DAVIS (read off a bar chart)": 30.7},
    )
)
alias("cosmos-di", "cosmos-di-8x8")
