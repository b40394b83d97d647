"""Periodic activations of sound (arXiv 2006.08195): plain, with two learned factors, and without aliasing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.inference import is_inferring
from zoo.layers.overlap import each_chunk, joined

STRIP = 2**18


def snake(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return `x + sin²(αx) / β`, without a gradient in the memory of one tensor."""
    if is_inferring():
        return (alpha * x).sin_().square_().div_(beta + 1e-9).add_(x)
    return x + torch.sin(alpha * x).square() / (beta + 1e-9)


class Snake(nn.Module):
    """`x + sin²(αx) / α` of `[B, channels, time]`, with an α of each channel that starts at 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return snake(x, self.alpha, self.alpha)


class SnakeBeta(nn.Module):
    """`x + sin²(eᵅx) / eᵝ` of `[B, channels, time]`, with an α and a β of each channel that start at 0 (BigVGAN)."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return snake(x, alpha, beta)


class AntiAliasedSnake(nn.Module):
    """`SnakeBeta` at twice the rate, between a filter that doubles it and one that halves it (BigVGAN).

    The activation makes frequencies above half the sample rate, which would fold back into the audible ones. An output
    depends on 5 steps on either side of its own. Without a gradient, `STRIP` values are computed at once, since what is
    between the filters is several times as large as the signal.
    """

    taps: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.act = SnakeBeta(channels)
        self.register_buffer("taps", half_band(12), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not is_inferring():
            return self.at_once(x)
        steps = x.shape[-1]
        return joined(each_chunk(self.at_once, x, steps, max(1, STRIP // x[..., 0].numel()), halo=5), steps)

    def at_once(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        taps = self.taps.to(x.dtype).expand(channels, 1, -1)
        x = F.pad(x, (5, 5), mode="replicate")
        x = 2 * F.conv_transpose1d(x, taps, stride=2, groups=channels)[..., 15:-15]
        x = self.act(x)
        x = F.pad(x, (5, 6), mode="replicate")
        return F.conv1d(x, taps, stride=2, groups=channels)


def half_band(taps: int) -> Tensor:
    """Return a low-pass filter for a change of rate by 2: a sinc in a Kaiser window, float32 `[taps]`, of sum 1."""
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * 0.3 + 7.95  # dB, of a transition band of 0.3
    window = torch.kaiser_window(taps, periodic=False, beta=0.1102 * (attenuation - 8.7), dtype=torch.float64)
    times = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    filter = window * torch.sinc(times / 2)
    return (filter / filter.sum()).float()
