"""TiTok: a picture of 256x256 to 32, 64 or 128 tokens that lie on no grid, and back.

Paper: An Image is Worth 32 Tokens for Reconstruction and Generation (NeurIPS 2024, arXiv 2406.07550).
Reference: bytedance/1d-tokenizer at 942a96fb.
Learned latent tokens attend to the picture's patches and are quantized; mask tokens attend to the quantized latents
and become a 16x16 grid of mixed MaskGIT-VQGAN codes, which that tokenizer's decoder renders. The variants here are
those trained in two stages, by the proxy codes of MaskGIT-VQGAN first, then by pixels with the encoder frozen.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.layers.titok import CHECKPOINT, DIM, SIZES, Decoder, Encoder
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class TiTok(Tokenizer):
    """Image tokenizer with a fixed number of tokens.

    Images `[B, 3, 256, 256]` in [0, 1]; codes `[B, 1, num_tokens]`; latents and unit codebook rows
    `[B, 12, num_tokens]`.

    Args:
        width, num_layers, num_heads: of the transformers in encoder and decoder.
        pixel_width: channels of the pixel decoder at full resolution.
    """

    interpolation = "bicubic"
    small: ClassVar = {"width": 64, "num_layers": 1, "num_heads": 2, "pixel_width": 8}

    def __init__(self, spec: TokenizerSpec, *, width: int, num_layers: int, num_heads: int, pixel_width: int = 128):
        super().__init__(spec)
        shape = (spec.num_tokens, spec.resolution[0], width, num_layers, num_heads)
        self.encoder = Encoder(*shape)
        self.quantizer = VectorQuantizer(DIM, *spec.codebook_sizes, distance="cosine")
        self.decoder = Decoder(*shape, pixel_width)


S_128 = register(
    "titok-s-128",
    TiTok,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(4096,),
        downsample=(),
        channels=3,
        resolution=(256, 256),
        num_tokens=128,
        variable_size=False,
        code_license="Apache-2.0",
        weights_license="Apache-2.0, for research purposes",
        paper="https://arxiv.org/abs/2406.07550",
        source="https://github.com/bytedance/1d-tokenizer",
    ),
    config=SIZES["small"],
    hub=HubSource("yucornetto/tokenizer_titok_s128_imagenet", "model.safetensors"),
    keys=CHECKPOINT,
    card="titok",
    figures={"rFID, ImageNet 256x256": 1.71},
)
register(
    replace(
        S_128,
        "titok-b-64",
        num_tokens=64,
        config=SIZES["base"],
        hub=HubSource("yucornetto/tokenizer_titok_b64_imagenet", "model.safetensors"),
        figures={"rFID, ImageNet 256x256": 1.70},
    )
)
register(
    replace(
        S_128,
        "titok-l-32",
        num_tokens=32,
        config=SIZES["large"],
        hub=HubSource("yucornetto/tokenizer_titok_l32_imagenet", "model.safetensors"),
        figures={"rFID, ImageNet 256x256": 2.21},
    )
)
alias("titok", "titok-b-64")
