"""IBQ and Emu3.5's image tokenizer: an image to one of up to 262,144 codes for each 16x16 pixels, and back.

Papers: Scalable Image Tokenization with Index Backpropagation Quantization (ICCV 2025, arXiv 2412.02692), Emu3.5:
Native Multimodal Models are World Learners (arXiv 2510.26583). References: TencentARC/SEED-Voken at b9a17ea, src/IBQ;
baaivision/Emu3.5 at 8fcf1da.
VQGAN's network, deeper, and in Emu3.5 twice as wide, with a codebook of vectors of 256 dimensions. A code is the row
with the largest inner product, not the nearest one; neither latents nor rows are normalised, although both
configurations have a switch for it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import ClassVar

from torch import nn

from zoo.checkpoints import KeyMap
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk, taming_keys
from zoo.modalities.image import Interpolation
from zoo.models.image.open_magvit2 import training_checkpoint
from zoo.quantizers import IBQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 1, 2, 2, 4)  # channels per resolution, finest first, in units of the network's width


class IBQTokenizer(Tokenizer):
    """Image tokenizer with one large codebook, whose rows all learn in every training step.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 1, h, w]`.

    Args:
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more.
        dim: latent channels.
        temperature: temperature of the quantizer's entropy term, in training.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation: Interpolation = "opencv"
    small: ClassVar = {"width": 8, "num_blocks": 1, "dim": 16}

    def __init__(
        self, spec: TokenizerSpec, *, width: int = 128, num_blocks: int = 4, dim: int = 256, temperature: float = 0.01
    ):
        super().__init__(spec)
        trunk = EncoderTrunk(width, MULTIPLIERS, num_blocks)
        head = EncoderHead(width * MULTIPLIERS[-1], dim, dim)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = IBQ(dim, *spec.codebook_sizes, temperature=temperature)
        self.decoder = Decoder(width, MULTIPLIERS, num_blocks, dim, dim)


class Emu35(IBQTokenizer):
    """Emu3.5's image tokenizer; arguments, images and codes as in `IBQTokenizer`.

    `preprocess(resolution=)` resizes an image to about `resolution`² pixels, with sides of multiples of 16, and cuts
    nothing off. The authors have 512, 720 and 1024.
    """

    interpolation = "bicubic"

    @staticmethod
    def target_size(height: int, width: int, resolution: int) -> tuple[int, int]:
        """Return the height and width to which an image of `height` by `width` is resized."""
        ratio = width / height
        inner_height = math.floor(math.sqrt(resolution**2 / ratio))
        inner_width = math.floor(inner_height * ratio)
        # The reference gives very long images a side of 0.
        return max(16, (inner_height + 8) // 16 * 16), max(16, (inner_width + 8) // 16 * 16)


NAMES = (*taming_keys(len(MULTIPLIERS)), ("quantize.embedding.weight", "quantizer.codebook"))
CHECKPOINT = training_checkpoint(*NAMES)


IBQ_1024 = register(
    "ibq-1024",
    IBQTokenizer,
    spec=TokenizerSpec(
        modality="image",
        quantizer="ibq",
        codebook_sizes=(1024,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2412.02692",
        source="https://github.com/TencentARC/SEED-Voken",
    ),
    config={},
    hub=HubSource("TencentARC/IBQ-Tokenizer-1024", "imagenet256_1024.ckpt"),
    keys=CHECKPOINT,
    card="ibq",
    figures={"rFID, ImageNet 256x256": 2.24, "LPIPS, ImageNet 256x256": 0.2580},
)
register(
    replace(
        IBQ_1024,
        "ibq-8192",
        codebook_sizes=(8192,),
        hub=HubSource("TencentARC/IBQ-Tokenizer-8192", "imagenet256_8192.ckpt"),
        figures={"rFID, ImageNet 256x256": 1.87, "LPIPS, ImageNet 256x256": 0.2437},
    )
)
IBQ_16384 = register(
    replace(
        IBQ_1024,
        "ibq-16384",
        codebook_sizes=(16384,),
        hub=HubSource("TencentARC/IBQ-Tokenizer-16384", "imagenet256_16384.ckpt"),
        figures={"rFID, ImageNet 256x256": 1.37, "LPIPS, ImageNet 256x256": 0.2235},
    )
)
IBQ_262144 = register(
    replace(
        IBQ_1024,
        "ibq-262144",
        codebook_sizes=(262144,),
        hub=HubSource("TencentARC/IBQ-Tokenizer-262144", "imagenet256_262144.ckpt"),
        figures={"rFID, ImageNet 256x256": 1.00, "LPIPS, ImageNet 256x256": 0.2030},
    )
)
register(
    replace(
        IBQ_16384,
        "ibq-pt-16384",
        hub=HubSource("TencentARC/IBQ-Tokenizer-16384-Pretrain", "IBQ_pretrain_16384.ckpt"),
        figures={
            "zero-shot rFID, ImageNet 256x256": 2.06,
            "zero-shot PSNR, ImageNet 256x256": 22.01,
            "zero-shot SSIM, ImageNet 256x256": 0.61,
        },
    )
)
register(
    replace(
        IBQ_262144,
        "ibq-pt-262144",
        hub=HubSource("TencentARC/IBQ-Tokenizer-262144-Pretrain", "IBQ_pretrain_262144.ckpt"),
        figures={
            "zero-shot rFID, ImageNet 256x256": 1.53,
            "zero-shot PSNR, ImageNet 256x256": 22.69,
            "zero-shot SSIM, ImageNet 256x256": 0.64,
        },
    )
)
alias("ibq", "ibq-262144")

register(
    "emu3.5-ibq",
    Emu35,
    spec=TokenizerSpec(
        modality="image",
        quantizer="ibq",
        codebook_sizes=(131072,),
        downsample=(16, 16),
        channels=3,
        resolution=(512, 512),
        code_license="Apache-2.0",
        weights_license="Apache-2.0",
        paper="https://arxiv.org/abs/2510.26583",
        source="https://github.com/baaivision/Emu3.5",
    ),
    config={"width": 256},
    hub=HubSource("BAAI/Emu3.5-VisionTokenizer", "model.safetensors"),
    keys=KeyMap(*NAMES),
    card="emu3.5-ibq",
)
alias("emu3.5", "emu3.5-ibq")
