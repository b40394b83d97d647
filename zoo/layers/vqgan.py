"""Encoder and decoder of VQGAN and the blocks that they are made of, which most image tokenizers share.

Paper: Taming Transformers for High-Resolution Image Synthesis (arXiv 2012.09841).
All take and return `[B, channels, H, W]`. Where attention is, the configuration says, and never the size of the image.
Norms and attention see the whole image, so an image coded in tiles is not the image coded at once.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.inference import is_inferring
from zoo.layers.upsampling import convolve_doubled


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm of 32 groups or, in small networks, fewer, of four channels: a single one would lose its mean."""
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-6)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """Return SiLU of the norm of `x`, in the norm's memory where no gradient needs it."""
    return F.silu(norm(x), inplace=is_inferring())


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        return self.shortcut(x) + self.conv2(activated(self.norm2, h))


class Attention(nn.Module):
    """Attention of one head over all positions of the image."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attended(self.norm(x), self.q, self.k, self.v))


def attended(x: Tensor, *projections: nn.Module) -> Tensor:
    """Return what attention of one head over all positions of `[B, channels, H, W]` takes from them.

    projections: those to queries, keys and values.
    """
    # Contiguous: otherwise the CPU's kernel holds the whole matrix of logits in memory.
    q, k, v = (rearrange(project(x), "b c h w -> b 1 (h w) c").contiguous() for project in projections)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[2])


def residual_blocks(count: int, channels_in: int, channels_out: int) -> nn.Sequential:
    """Return `count` residual blocks, of which the first changes the number of channels."""
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.Sequential(*(ResidualBlock(channels, channels_out) for channels in inputs))


def middle(channels: int, *, attention: bool = True) -> nn.Sequential:
    """Return the blocks of the lowest resolution: residual, attention (if wanted), residual."""
    between = Attention(channels) if attention else nn.Identity()
    return nn.Sequential(ResidualBlock(channels, channels), between, ResidualBlock(channels, channels))


class Downsample(nn.Module):
    """Halve height and width; padded at the right and at the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width: nearest neighbours, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve_doubled(self.conv, x)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if `attention`, then `resample`."""

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
    """Images `[B, 3, H, W]` to features `[B, width * multipliers[-1], h, w]`; levels are numbered from the image.

    Args:
        width: channels at full resolution. multipliers: channels of each resolution as multiples of `width`, finest
            first. num_blocks: residual blocks of each.
        attention: whether there is attention after each block of the coarsest level.
        middle_attention: whether there is attention between the last two blocks.
    """

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        *,
        attention: bool = True,
        middle_attention: bool = True,
    ):
        super().__init__()
        channels = [width, *(width * multiplier for multiplier in multipliers)]
        last = len(multipliers) - 1
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.Sequential(
            *(
                Level(
                    c_in,
                    c_out,
                    num_blocks,
                    attention and i == last,
                    nn.Identity() if i == last else Downsample(c_out),
                )
                for i, (c_in, c_out) in enumerate(pairwise(channels))
            )
        )
        self.mid = middle(channels[-1], attention=middle_attention)

    def forward(self, image: Tensor) -> Tensor:
        return self.mid(self.levels(self.stem(image)))


def projection(channels_in: int, channels_out: int, kernel: int) -> nn.Module:
    """Return the convolution between code vectors and the other channels; of side 0: nothing."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2) if kernel else nn.Identity()


class EncoderHead(nn.Module):
    """Features `[B, channels, h, w]` to latents `[B, dim, h, w]`, over `neck` channels; `kernel` as in `Decoder`."""

    def __init__(self, channels: int, neck: int, dim: int, *, kernel: int = 1):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv = nn.Conv2d(channels, neck, 3, padding=1)
        self.project = projection(neck, dim, kernel)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(self.conv(activated(self.norm, features)))


class Decoder(nn.Module):
    """Code vectors `[B, dim, h, w]` to images `[B, 3, H, W]`; levels are numbered from the code vectors.

    A level has one residual block more than the encoder's `num_blocks`. Arguments as in `EncoderTrunk` and
    `EncoderHead`.

    Args:
        kernel: side of the convolution between the code vectors and `neck` channels; 0: there is none.
    """

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        neck: int,
        dim: int,
        *,
        kernel: int = 1,
        attention: bool = True,
        middle_attention: bool = True,
    ):
        super().__init__()
        outputs = [width * multiplier for multiplier in reversed(multipliers)]
        channels = [outputs[0], *outputs]
        last = len(multipliers) - 1
        self.project = projection(dim, neck, kernel)
        self.stem = nn.Conv2d(neck, channels[0], 3, padding=1)
        self.mid = middle(channels[0], attention=middle_attention)
        self.levels = nn.Sequential(
            *(
                Level(
                    c_in,
                    c_out,
                    num_blocks + 1,
                    attention and i == 0,
                    nn.Identity() if i == last else Upsample(c_out),
                )
                for i, (c_in, c_out) in enumerate(pairwise(channels))
            )
        )
        self.norm = group_norm(channels[-1])
        self.head = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.levels(self.mid(self.stem(self.project(latent))))
        return self.head(activated(self.norm, x))


def taming_keys(num_levels: int) -> tuple[tuple[str, str], ...]:
    """Return the names that taming-transformers and what followed it give to the tensors, and ours.

    They are those of a `Decoder` at `decoder` and of a sequence at `encoder` of a `trunk` and a `head`, with
    `num_levels` resolutions. Both number the encoder's levels from the image; the published decoder has the same
    numbers, ours is numbered from the code vectors.
    """
    decoder = [(f"decoder.up.{num_levels - 1 - i}.", f"decoder.levels.{i}.") for i in range(num_levels)]
    return named_levels(("encoder.down.{i}.", "encoder.trunk.levels.{i}."), *decoder)


def named_levels(*levels: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the rules of `taming_keys` with these names of the resolutions, published and ours."""
    return (
        ("encoder.conv_in.", "encoder.trunk.stem."),
        *(
            (published + their_part, ours + our_part)
            for published, ours in levels
            for their_part, our_part in (
                ("block.{j}.nin_shortcut.", "blocks.{j}.shortcut."),
                ("block.", "blocks."),
                ("attn.{j}.proj_out.", "attentions.{j}.out."),
                ("attn.", "attentions."),
                ("downsample." if "down" in published else "upsample.", "resample."),
            )
        ),
        *(
            (f"{published}.mid.{their_part}.", f"{ours}.mid.{our_part}.")
            for published, ours in (("encoder", "encoder.trunk"), ("decoder", "decoder"))
            for their_part, our_part in (
                ("block_1", "0"),
                ("attn_1.proj_out", "1.out"),
                ("attn_1", "1"),
                ("block_2", "2"),
            )
        ),
        ("encoder.norm_out.", "encoder.head.norm."),
        ("encoder.conv_out.", "encoder.head.conv."),
        ("quant_conv.", "encoder.head.project."),
        ("post_quant_conv.", "decoder.project."),
        ("decoder.conv_in.", "decoder.stem."),
        ("decoder.norm_out.", "decoder.norm."),
        ("decoder.conv_out.", "decoder.head."),
    )
