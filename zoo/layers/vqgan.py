"""Convolutional blocks of VQGAN, which most image tokenizers share.

Paper: Taming Transformers for High-Resolution Image Synthesis (arXiv 2012.09841).
All take and return `[B, channels, H, W]`.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm of 32 groups or, in small networks, fewer, of four channels: a single one would lose its mean."""
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-6)


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
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


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
        h = self.norm(x)
        # Contiguous: otherwise the CPU's kernel holds the whole matrix of logits in memory.
        sequences = (rearrange(project(h), "b c h w -> b 1 (h w) c") for project in (self.q, self.k, self.v))
        q, k, v = (sequence.contiguous() for sequence in sequences)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(h, "b 1 (h w) c -> b c h w", h=x.shape[2]))


def residual_blocks(count: int, channels_in: int, channels_out: int) -> nn.Sequential:
    """Return `count` residual blocks, of which the first changes the number of channels."""
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.Sequential(*(ResidualBlock(channels, channels_out) for channels in inputs))


def middle(channels: int) -> nn.Sequential:
    """Return the blocks of the lowest resolution: residual, attention, residual."""
    return nn.Sequential(ResidualBlock(channels, channels), Attention(channels), ResidualBlock(channels, channels))


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
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
