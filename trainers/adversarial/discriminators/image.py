"""Discriminators of images, and of video frame by frame."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.trainers.adversarial.discriminators.stack import Judgements
from zoo.trainers.frames import frames


class PatchGAN(nn.Module):
    """Judges overlapping patches, each of 70 pixels a side with three layers, 142 with four.

    It is pix2pix's (Isola 2017, arXiv 1611.07004) as VQGAN uses it, and after it LlamaGen, FQGAN, WeTok, Open-MAGVIT2,
    IBQ, TokenFlow and VidTok, all with three layers. It has convolutions of 4 by 4, whose initial weights are normal
    with deviation 0.02, a batch norm (gains normal with mean 1 and deviation 0.02) after all but the first and the
    last, and LeakyReLU 0.2.

    Takes `[B, 3, H, W]` or `[B, 3, T, H, W]`; with three layers logits are `[B (T), 1, H // 8 - 2, W // 8 - 2]`,
    features the maps after each LeakyReLU. InputError for images too small for one logit: less than 24 pixels a side
    with three layers, 48 with four.

    Args:
        width: channels of the first layer; each later layer doubles them, up to eight times `width`.
        num_layers: number of layers that halve the image; two more follow.
    """

    def __init__(self, *, width: int = 64, num_layers: int = 3):
        super().__init__()
        widths = [width * min(2**index, 8) for index in range(num_layers + 1)]
        blocks: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2))]
        for index, (before, after) in enumerate(pairwise(widths), 1):
            convolution = nn.Conv2d(before, after, 4, 2 if index < num_layers else 1, 1, bias=False)
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)))
        self.blocks = nn.ModuleList(blocks)
        self.to_logits = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, signal: Tensor) -> Judgements:
        smallest = 3 * 2 ** (len(self.blocks) - 1)
        if min(signal.shape[-2:]) < smallest:
            raise InputError(
                f"this discriminator takes images of at least {smallest} pixels a side, got {list(signal.shape)}"
            )
        x, features = frames(signal), []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return [(self.to_logits(x), features)]


class BlurPatchGAN(nn.Module):
    """Judges a grid of 16 by 16 parts whatever the image's size, with downsampling that does not alias.

    It is One-D-Piece's and TiTok's (bytedance/1d-tokenizer): a convolution of 5 by 5, then stages of a 3 by 3
    convolution, a fixed blur that halves the image, a group norm and LeakyReLU 0.1. The greatest value of each part
    goes through 1 by 1 and 5 by 5 convolutions. Initial weights are PyTorch's.

    Takes `[B, 3, H, W]` or `[B, 3, T, H, W]`; logits `[B (T), 1, 16, 16]`, features the map after each stage.

    Args:
        width: channels of the first stage, a multiple of 32; each later stage doubles them.
        num_stages: number of stages, each of which halves the image.
    """

    def __init__(self, *, width: int = 128, num_stages: int = 3):
        super().__init__()
        widths = [width, *(width * 2**index for index in range(num_stages))]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 5, padding=2), nn.LeakyReLU(0.1))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), Halve(), nn.GroupNorm(32, after), nn.LeakyReLU(0.1))
            for before, after in pairwise(widths)
        )
        self.pool = nn.AdaptiveMaxPool2d(16)
        self.to_logits = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 1), nn.LeakyReLU(0.1), nn.Conv2d(widths[-1], 1, 5, padding=2)
        )

    def forward(self, signal: Tensor) -> Judgements:
        x, features = self.stem(frames(signal)), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return [(self.to_logits(self.pool(x)), features)]


class StyleGAN(nn.Module):
    """Judges an image as a whole, through residual blocks that halve it down to 4 by 4.

    It is StyleGAN2's (arXiv 1912.04958) as LlamaGen offers it, without equalized learning rates and minibatch
    deviation. A block has two 3 by 3 convolutions, each followed by LeakyReLU 0.2, then a blur of (1, 2, 1) and a
    strided convolution; beside these it has a strided 1 by 1 convolution. The sum of both is divided by the root of 2.
    Initial weights are PyTorch's.

    Takes `[B, 3, resolution, resolution]` or `[B, 3, T, resolution, resolution]`; logits `[B (T), 1]`, features the map
    after each block. InputError for another size.

    Args:
        resolution: height and width in pixels, a power of 2.
        channel_base, channel_max: a layer of side r has channel_base / r channels, at most channel_max.
    """

    def __init__(self, *, resolution: int = 256, channel_base: int = 16384, channel_max: int = 512):
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise InputError(f"expected a resolution that is a power of 2 and at least 8, got {resolution}")
        self.resolution = resolution
        sides = [resolution >> index for index in range(resolution.bit_length() - 2)]  # resolution, ..., 8, 4
        widths = [min(channel_max, channel_base // side) for side in sides]
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(HalvingBlock(*pair) for pair in pairwise(widths))
        self.final = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten())
        self.to_logits = nn.Sequential(
            nn.Linear(16 * widths[-1], widths[-1]), nn.LeakyReLU(0.2), nn.Linear(widths[-1], 1)
        )

    def forward(self, signal: Tensor) -> Judgements:
        images = frames(signal)
        if images.shape[2:] != (self.resolution, self.resolution):
            raise InputError(
                f"this discriminator takes images of {self.resolution} by {self.resolution} pixels, "
                f"got {list(signal.shape)}"
            )
        x, features = self.stem(images), []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return [(self.to_logits(self.final(x)), features)]


class HalvingBlock(nn.Module):
    """Residual block of `StyleGAN`: `[B, before, H, W]` to `[B, after, H / 2, W / 2]`."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.shortcut = nn.Conv2d(before, after, 1, 2)
        self.convolve = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(after, after, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.blur = Blur((1, 2, 1), stride=1)
        self.halve = nn.Conv2d(after, after, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        blurred = self.blur(functional.pad(self.convolve(x), (1, 1, 1, 1), mode="reflect"))
        return (self.halve(blurred) + self.shortcut(x)) / math.sqrt(2)


class Halve(nn.Module):
    """A blur of (1, 3, 3, 1) at every second pixel: `[B, C, H, W]` to half the size, rounded up; zeros around."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = Blur((1, 3, 3, 1), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return self.blur(functional.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)))


class Blur(nn.Module):
    """Each channel of `[B, C, H, W]` smoothed along both axes by `taps` over their sum, without padding."""

    kernel: Tensor

    def __init__(self, taps: tuple[int, ...], stride: int):
        super().__init__()
        row = torch.tensor(taps) / sum(taps)
        self.register_buffer("kernel", row[:, None] * row, persistent=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return functional.conv2d(x, kernel, stride=self.stride, groups=x.shape[1])
