"""TokenBridge: an image to 16 codes of six bits per position, one for each channel of a continuous latent, and back.

Paper: Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation (ICCV 2025, arXiv 2503.16430).
Reference: YuqingWang1029/TokenBridge at 3ede281; its autoencoder is KL-16 of MAR (LTH14/mar, arXiv 2406.11838).
The autoencoder was trained without codes: its latent is scaled to unit deviation by one published number, and each
channel is rounded on its own to one of 64 levels. `zoo.discretize` does the same to any other autoencoder.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.noise import noise_like
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk, taming_keys
from zoo.quantizers import DimensionwiseQuantizer
from zoo.registry import HubSource, alias, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 1, 2, 2, 4)  # channels per resolution, finest first, in units of the network's width
NUM_BLOCKS = 2  # residual blocks per resolution of the encoder


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
    interpolation = "halved-bicubic"
    small: ClassVar = {"width": 32}

    def __init__(self, spec: TokenizerSpec, *, latent_scale: float, width: int = 128):
        super().__init__(spec)
        dim = spec.num_codebooks
        self.latent_scale = latent_scale
        trunk = EncoderTrunk(width, MULTIPLIERS, NUM_BLOCKS)
        head = EncoderHead(width * MULTIPLIERS[-1], 2 * dim, 2 * dim)  # means and log-variances
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = DimensionwiseQuantizer(dim, bits=6)
        self.decoder = Decoder(width, MULTIPLIERS, NUM_BLOCKS, dim, dim, attention=False)

    def to_latent(self, signal: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # The reference always draws; with the means, an image has the same codes every time.
        latent, log_variance = self.encoder(signal).chunk(2, dim=1)
        if generator is not None:
            latent = latent + (log_variance.clamp(-30, 20) / 2).exp() * noise_like(latent, generator)
        return latent * self.latent_scale

    def from_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(latent / self.latent_scale)


CHECKPOINT = KeyMap(*taming_keys(len(MULTIPLIERS)), layout=("model",), ignore=("loss.",))

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
