"""TokenBridge: an image to 16 codes of six bits per position, one for each channel of a continuous latent, and back.

Paper: Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation (ICCV 2025, arXiv 2503.16430).
Reference: YuqingWang1029/TokenBridge at 3ede281; its autoencoder is KL-16 of MAR (LTH14/mar, arXiv 2406.11838).
The autoencoder was trained without codes: its latent is scaled to unit deviation by one published number, and each
channel is rounded on its own to one of 64 levels. `zoo.discretize` does the same to any other autoencoder.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.noise import noise_like
from zoo.layers.vqgan import Attention, Downsample, Upsample, group_norm, middle, residual_blocks
from zoo.quantizers import DimensionwiseQuantizer
from zoo.registry import HubSource, alias, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 1, 2, 2, 4)  # channels per resolution, finest first, in units of the network's width


class Encoder(nn.Module):
    """`[B, 3, H, W]` to the latent's means and log-variances, `[B, 2 dim, h, w]`."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        channels = [width * multiplier for multiplier in (1, *MULTIPLIERS)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.ModuleList(residual_blocks(2, *ends) for ends in pairwise(channels))
        self.downsamples = nn.ModuleList(Downsample(c) for c in channels[1:-1])
        # One after each of the two blocks of the last level, whatever the image size; the decoder has none there.
        self.attentions = nn.ModuleList(Attention(channels[-1]) for _ in range(2))
        self.mid = middle(channels[-1])
        self.norm = group_norm(channels[-1])
        self.head = nn.Conv2d(channels[-1], 2 * dim, 3, padding=1)
        self.moments = nn.Conv2d(2 * dim, 2 * dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for level, downsample in zip(self.levels, self.downsamples, strict=False):
            x = downsample(level(x))
        for block, attention in zip(self.levels[-1].children(), self.attentions, strict=True):
            x = attention(block(x))
        return self.moments(self.head(F.silu(self.norm(self.mid(x)))))


class Decoder(nn.Module):
    """`[B, dim, h, w]` to `[B, 3, H, W]`."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        channels = [width * multiplier for multiplier in MULTIPLIERS]
        self.latent = nn.Conv2d(dim, dim, 1)
        self.stem = nn.Conv2d(dim, channels[-1], 3, padding=1)
        self.mid = middle(channels[-1])
        inputs = [*channels[1:], channels[-1]]
        self.levels = nn.ModuleList(residual_blocks(3, *pair) for pair in zip(inputs, channels, strict=True))
        # Level 0 has the resolution of the image: nothing is upsampled after it.
        self.upsamples = nn.ModuleList(Upsample(c) for c in channels[1:])
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.stem(self.latent(latent)))
        for i in reversed(range(len(self.levels))):
            x = self.levels[i](x)
            if i > 0:
                x = self.upsamples[i - 1](x)
        return self.head(F.silu(self.norm(x)))


class TokenBridge(Tokenizer):
    """Image tokenizer that rounds each channel of a variational autoencoder's latent.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 16, h, w]`, one for each latent channel, 0 the most
    negative level. The latent is in units of its standard deviation, as the authors' generator takes it. The codes are
    those of the posterior's mean; `encode` accepts `generator=` to draw the latent from the posterior instead.

    Args:
        latent_scale: the reciprocal of the standard deviation of KL-16's latents over ImageNet.
        width: channels at full resolution.
    """

    input_mean = 0.5
    input_std = 0.5
    encode_options = ("generator",)
    interpolation = "bicubic"
    small: ClassVar = {"width": 32}

    def __init__(self, spec: TokenizerSpec, *, latent_scale: float, width: int = 128):
        super().__init__(spec)
        dim = spec.num_codebooks
        self.latent_scale = latent_scale
        self.encoder = Encoder(width, dim)
        self.quantizer = DimensionwiseQuantizer(dim, bits=6)
        self.decoder = Decoder(width, dim)

    def to_latent(self, signal: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # The reference always draws; with the means, an image has the same codes every time.
        latent, log_variance = self.encoder(signal).chunk(2, dim=1)
        if generator is not None:
            latent = latent + (log_variance.clamp(-30, 20) / 2).exp() * noise_like(latent, generator)
        return latent * self.latent_scale

    def from_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(latent / self.latent_scale)


CHECKPOINT = KeyMap(
    ("encoder.conv_in.", "encoder.stem."),
    ("encoder.down.{i}.block.{j}.nin_shortcut.", "encoder.levels.{i}.{j}.shortcut."),
    ("encoder.down.{i}.block.", "encoder.levels.{i}."),
    ("encoder.down.{i}.downsample.", "encoder.downsamples.{i}."),
    ("encoder.down.4.attn.{j}.proj_out.", "encoder.attentions.{j}.out."),
    ("encoder.down.4.attn.", "encoder.attentions."),
    ("encoder.norm_out.", "encoder.norm."),
    ("encoder.conv_out.", "encoder.head."),
    ("quant_conv.", "encoder.moments."),
    ("post_quant_conv.", "decoder.latent."),
    ("decoder.conv_in.", "decoder.stem."),
    ("decoder.up.{i}.block.{j}.nin_shortcut.", "decoder.levels.{i}.{j}.shortcut."),
    ("decoder.up.{i}.block.", "decoder.levels.{i}."),
    # The published number of an upsampling is the level it starts from, ours the level it leads to.
    *((f"decoder.up.{i + 1}.upsample.", f"decoder.upsamples.{i}.") for i in range(len(MULTIPLIERS) - 1)),
    ("decoder.norm_out.", "decoder.norm."),
    ("decoder.conv_out.", "decoder.head."),
    *(
        (f"{side}.mid.{published}.", f"{side}.mid.{ours}.")
        for side in ("encoder", "decoder")
        for published, ours in (("block_1", "0"), ("attn_1.proj_out", "1.out"), ("attn_1", "1"), ("block_2", "2"))
    ),
    layout=("model",),
    ignore=("loss.",),
)

register(
    "tokenbridge-kl16",
    TokenBridge,
    spec=TokenizerSpec(
        modality="image",
        quantizer="dimensionwise",
        codebook_sizes=(64,) * 16,
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        code_license="MIT",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2503.16430",
        source="https://github.com/YuqingWang1029/TokenBridge",
    ),
    config={"latent_scale": 0.2325},
    hub=HubSource("Epiphqny/TokenBridge", "vae/kl16.ckpt"),
    keys=CHECKPOINT,
    card="tokenbridge",
    figures={"rFID, ImageNet 256x256": 0.53},
)
alias("tokenbridge", "tokenbridge-kl16")
