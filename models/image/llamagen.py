"""LlamaGen VQ: a picture to one index of 16384 per position and back.

Paper: Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation (arXiv 2406.06525).
Reference: FoundationVision/LlamaGen at ce98ec4.
A plain VQGAN with eight latent channels. Latents and codebook rows are divided by their norms at every use: the stored
rows have other lengths, and what the decoder receives is the unit row.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from zoo.checkpoints import KeyMap
from zoo.layers.llamagen import KEYS, Decoder, EncoderHead, EncoderTrunk
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class LlamaGenVQ(Tokenizer):
    """Image tokenizer with one l2-normalised codebook.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 1, h, w]`.

    Args:
        multipliers: of `width`, one per resolution, finest first.
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more. dim: latent channels.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "bicubic"
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        multipliers: tuple[int, ...],
        width: int = 128,
        num_blocks: int = 2,
        dim: int = 8,
    ):
        super().__init__(spec)
        trunk = EncoderTrunk(width, multipliers, num_blocks)
        head = EncoderHead(width * multipliers[-1], dim)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = VectorQuantizer(dim, *spec.codebook_sizes, distance="cosine")
        self.decoder = Decoder(width, multipliers, num_blocks, dim)


CHECKPOINT = KeyMap(
    *KEYS,
    ("encoder.norm_out.", "encoder.head.norm."),
    ("encoder.conv_out.", "encoder.head.conv."),
    ("quant_conv.", "encoder.head.project."),
    ("quantize.embedding.weight", "quantizer.codebook"),
    layout=("model",),
    ignore=("quantize.codebook_used",),
)


F8, F16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)

VQ_16 = register(
    "llamagen-vq-16",
    LlamaGenVQ,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(16384,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        code_license="MIT",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2406.06525",
        source="https://github.com/FoundationVision/LlamaGen",
    ),
    config={"multipliers": F16},
    hub=HubSource("FoundationVision/LlamaGen", "vq_ds16_c2i.pt"),
    keys=CHECKPOINT,
    card="llamagen-vq",
    figures={
        "rFID, ImageNet 256x256": 2.19,
        "rFID, ImageNet coded at 384x384": 0.94,
        "rFID, ImageNet coded at 512x512": 0.70,
        "PSNR, ImageNet 256x256": 20.79,
        "SSIM, ImageNet 256x256": 0.675,
    },
)
register(
    replace(
        VQ_16,
        "llamagen-vq-8",
        downsample=(8, 8),
        config={"multipliers": F8},
        hub=HubSource("FoundationVision/LlamaGen", "vq_ds8_c2i.pt"),
        figures={"rFID, ImageNet 256x256": 0.59},
    )
)
register(replace(VQ_16, "llamagen-vq-16-t2i", hub=HubSource("peizesun/llamagen_t2i", "vq_ds16_t2i.pt")))
alias("llamagen-vq", "llamagen-vq-8")
