"""VAR's tokenizer: an image to a pyramid of codes, ten maps from 1x1 to 16x16 with one codebook of 4,096, and back.

Paper: Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction (arXiv 2404.02905).
Reference: FoundationVision/VAR at 78b95394.
A VQGAN whose latent is coded scale by scale: each map codes what the coarser ones left, its rows are enlarged
bicubically to 16x16 and pass one of four convolutions, phi, that neighbouring scales share
(`zoo.quantizers.MultiScaleVQ`). Which scale has which phi is stored: the authors compute it, and two scales lie exactly
between two of them, where rounding decides. The file of weights is one; images of 512x512 have other scales, and codes
of one list mean nothing in another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk, taming_keys
from zoo.quantizers import MultiScaleVQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec, squares
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 1, 2, 2, 4)


class VAR(Tokenizer):
    """Image tokenizer with a pyramid of codes.

    Images `[B, 3, 256, 256]` in [0, 1]; codes `[B, 1, 680]`, the maps of `spec.scales` one after the other, coarse to
    fine, each row by row. The first scales decode alone: `num_scales=` of `encode` and `decode`. Latents
    `[B, dim, 16, 16]` are the sum of all scales.

    Args:
        phi_of_scale: number of the convolution of each scale.
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more. dim: latent channels.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "lanczos"
    margin = 1.125
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        phi_of_scale: tuple[int, ...],
        width: int = 160,
        num_blocks: int = 2,
        dim: int = 32,
    ):
        super().__init__(spec)
        trunk = EncoderTrunk(width, MULTIPLIERS, num_blocks)
        head = EncoderHead(width * MULTIPLIERS[-1], dim, dim, kernel=3)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = MultiScaleVQ(dim, spec.codebook_sizes[0], spec.pyramids, phi_of_scale=phi_of_scale)
        self.decoder = Decoder(width, MULTIPLIERS, num_blocks, dim, dim, kernel=3)


def third(number: int, stacked: Tensor) -> Tensor:
    """Return one of three tensors that are stored in one, along its first axis."""
    return stacked.chunk(3)[number]


def attention_keys() -> list[tuple[str, str, Callable[[Tensor], Tensor]]]:
    """Return the rules of the convolution `qkv`, which holds queries, keys and values in this order."""
    coarsest = len(MULTIPLIERS) - 1
    places = (
        (f"encoder.down.{coarsest}.attn.{{i}}.qkv.", f"encoder.trunk.levels.{coarsest}.attentions.{{i}}."),
        ("encoder.mid.attn_1.qkv.", "encoder.trunk.mid.1."),
        ("decoder.mid.attn_1.qkv.", "decoder.mid.1."),
        (f"decoder.up.{coarsest}.attn.{{i}}.qkv.", "decoder.levels.0.attentions.{i}."),
    )
    return [
        (published, f"{ours}{name}.", partial(third, number))
        for published, ours in places
        for number, name in enumerate("qkv")
    ]


CHECKPOINT = KeyMap(
    *attention_keys(),
    *taming_keys(len(MULTIPLIERS)),
    ("quantize.embedding.weight", "quantizer.layer.codebook"),
    ("quantize.quant_resi.qresi_ls.", "quantizer.phi."),
    ignore=("quantize.ema_vocab_hit_SV",),
)


FILE = HubSource("FoundationVision/var", "vae_ch160v4096z32.pth")

VAR_256 = register(
    "var-vq-16-4096",
    VAR,
    spec=TokenizerSpec(
        modality="image",
        quantizer="multi-scale-vq",
        codebook_sizes=(4096,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        scales=squares(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        variable_size=False,
        code_license="MIT",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2404.02905",
        source="https://github.com/FoundationVision/VAR",
    ),
    config={"phi_of_scale": (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)},
    hub=FILE,
    keys=CHECKPOINT,
    card="var",
)
register(
    replace(
        VAR_256,
        "var-vq-16-4096-512",
        resolution=(512, 512),
        scales=squares(1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
        hub=FILE,
    )
)
alias("var", "var-vq-16-4096")
