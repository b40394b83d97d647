"""The encoder and decoder of LlamaGen's image tokenizer, which later systems build on.

Paper: Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation (arXiv 2406.06525).
Reference: FoundationVision/LlamaGen at ce98ec4.
A VQGAN whose attention belongs to the coarsest level, behind each residual block, whatever the image size. Norms and
attention see the whole picture, so tiles are not parts of the whole.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.vqgan import Attention, Downsample, ResidualBlock, Upsample, group_norm, middle

NECK = 256  # channels between the convolutions and the code space


class Level(nn.Module):
    """Residual blocks at one resolution, each with attention behind it at the coarsest, then a change of size."""

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, attention: bool, resample: nn.Module):
        super().__init__()
        inputs = [channels_in, *[channels_out] * (num_blocks - 1)]
        self.blocks = nn.ModuleList(ResidualBlock(channels, channels_out) for channels in inputs)
        self.attentions = nn.ModuleList(Attention(channels_out) if attention else nn.Identity() for _ in inputs)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return self.resample(x)


class EncoderTrunk(nn.Module):
    """Picture `[B, 3, H, W]` to features `[B, width * multipliers[-1], h, w]`; levels are numbered from the picture."""

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int):
        super().__init__()
        channels = [width, *(width * multiplier for multiplier in multipliers)]
        last = len(multipliers) - 1
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.Sequential(
            *(
                Level(c_in, c_out, num_blocks, i == last, nn.Identity() if i == last else Downsample(c_out))
                for i, (c_in, c_out) in enumerate(pairwise(channels))
            )
        )
        self.mid = middle(channels[-1])

    def forward(self, image: Tensor) -> Tensor:
        return self.mid(self.levels(self.stem(image)))


class EncoderHead(nn.Module):
    """Features `[B, channels, h, w]` to what is quantized, `[B, dim, h, w]`."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv = nn.Conv2d(channels, NECK, 3, padding=1)
        self.project = nn.Conv2d(NECK, dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(self.conv(F.silu(self.norm(features))))


class Decoder(nn.Module):
    """Code vectors `[B, dim, h, w]` to the picture `[B, 3, H, W]`; levels are numbered from the code vectors.

    A level has one residual block more than the encoder's `num_blocks`.
    """

    def __init__(self, width: int, multipliers: tuple[int, ...], num_blocks: int, dim: int):
        super().__init__()
        outputs = [width * multiplier for multiplier in reversed(multipliers)]
        channels = [outputs[0], *outputs]
        last = len(multipliers) - 1
        self.project = nn.Conv2d(dim, NECK, 1)
        self.stem = nn.Conv2d(NECK, channels[0], 3, padding=1)
        self.mid = middle(channels[0])
        self.levels = nn.Sequential(
            *(
                Level(c_in, c_out, num_blocks + 1, i == 0, nn.Identity() if i == last else Upsample(c_out))
                for i, (c_in, c_out) in enumerate(pairwise(channels))
            )
        )
        self.norm = group_norm(channels[-1])
        self.head = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.levels(self.mid(self.stem(self.project(latent))))
        return self.head(F.silu(self.norm(x)))


# Published names of an `EncoderTrunk` at `encoder.trunk` and a `Decoder` at `decoder`.
KEYS = (
    ("encoder.conv_in.", "encoder.trunk.stem."),
    ("encoder.conv_blocks.{i}.res.{j}.nin_shortcut.", "encoder.trunk.levels.{i}.blocks.{j}.shortcut."),
    ("encoder.conv_blocks.{i}.res.", "encoder.trunk.levels.{i}.blocks."),
    ("encoder.conv_blocks.{i}.attn.{j}.proj_out.", "encoder.trunk.levels.{i}.attentions.{j}.out."),
    ("encoder.conv_blocks.{i}.attn.", "encoder.trunk.levels.{i}.attentions."),
    ("encoder.conv_blocks.{i}.downsample.", "encoder.trunk.levels.{i}.resample."),
    ("encoder.mid.1.proj_out.", "encoder.trunk.mid.1.out."),
    ("encoder.mid.", "encoder.trunk.mid."),
    ("post_quant_conv.", "decoder.project."),
    ("decoder.conv_in.", "decoder.stem."),
    ("decoder.mid.1.proj_out.", "decoder.mid.1.out."),
    ("decoder.conv_blocks.{i}.res.{j}.nin_shortcut.", "decoder.levels.{i}.blocks.{j}.shortcut."),
    ("decoder.conv_blocks.{i}.res.", "decoder.levels.{i}.blocks."),
    ("decoder.conv_blocks.{i}.attn.{j}.proj_out.", "decoder.levels.{i}.attentions.{j}.out."),
    ("decoder.conv_blocks.{i}.attn.", "decoder.levels.{i}.attentions."),
    ("decoder.conv_blocks.{i}.upsample.", "decoder.levels.{i}.resample."),
    ("decoder.norm_out.", "decoder.norm."),
    ("decoder.conv_out.", "decoder.head."),
)
