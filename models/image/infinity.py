"""Infinity's tokenizer: an image of one of many shapes to a pyramid of codes of 16 to 64 bits each, and back.

Paper: Infinity: Scaling Bitwise AutoRegressive Modeling for High-Resolution Image Synthesis (arXiv 2412.04431).
Reference: FoundationVision/Infinity at 4c27bbb5.
A convolutional autoencoder without attention. Each scale keeps the signs of what the coarser ones left, as corners of a
cube on the unit sphere (`zoo.quantizers.MultiScaleQuantizer` of `BSQ`, arXiv 2406.07548): there is no codebook, and
nothing in the quantizer is learned. The grids of the scales depend on the shape of the image, so the spec has those of
every shape (`spec.other_scales`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from zoo.checkpoints import KeyMap
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk
from zoo.quantizers import BSQ, MultiScaleQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import Scales, TokenizerSpec
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 2, 4, 4, 4)


class Infinity(Tokenizer):
    """Image tokenizer with a pyramid of sign vectors.

    Images `[B, 3, H, W]` in [0, 1] of one of `spec.sizes`; codes `[B, 1, positions]`, the maps of
    `spec.scales_of((H, W))` one after the other, coarse to fine, each row by row. The first channel is the most
    significant bit of a code. 64 channels, too many for an int64, are codes `[B, 64, positions]` of one bit each. The
    first scales decode alone: `num_scales=` of `encode` and `decode`. Latents are `[B, dim, H / 16, W / 16]`.

    As many codes as a wide image has an equally high one: `decode` and `embed` take `size=(H, W)` to distinguish them.
    Without it, codes stand for a square image of the variant's resolution if they can.

    Args:
        dim: latent channels, the bits of a position. width: channels at full resolution.
        num_blocks: residual blocks per resolution of the encoder; the decoder has one more.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "lanczos"
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(self, spec: TokenizerSpec, *, dim: int, width: int = 128, num_blocks: int = 2):
        super().__init__(spec)
        trunk = EncoderTrunk(width, MULTIPLIERS, num_blocks, attention=False, middle_attention=False)
        head = EncoderHead(width * MULTIPLIERS[-1], dim, dim, kernel=0)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        signs = BSQ(dim, num_groups=spec.num_codebooks, bit_order="big")
        self.quantizer = MultiScaleQuantizer(signs, spec.pyramids, enlargement="bilinear")
        self.decoder = Decoder(
            width, MULTIPLIERS, num_blocks, dim, dim, kernel=0, attention=False, middle_attention=False
        )


def key_rules() -> list[tuple[str, str]]:
    """Return the published names, in which every convolution and every norm has one part more than in taming's."""
    coarsest = len(MULTIPLIERS) - 1
    levels = [("encoder.down.{i}.", "encoder.trunk.levels.{i}.")]
    levels += [(f"decoder.up.{coarsest - i}.", f"decoder.levels.{i}.") for i in range(len(MULTIPLIERS))]
    blocks = [(f"{published}block.{{j}}.", f"{ours}blocks.{{j}}.") for published, ours in levels]
    for published, ours in (("encoder.", "encoder.trunk."), ("decoder.", "decoder.")):
        blocks += [(f"{published}mid.block_1.", f"{ours}mid.0."), (f"{published}mid.block_2.", f"{ours}mid.2.")]
    parts = (
        ("norm1.norm.", "norm1."),
        ("conv1.conv.", "conv1."),
        ("norm2.norm.", "norm2."),
        ("conv2.conv.", "conv2."),
        ("nin_shortcut.conv.", "shortcut."),
    )
    return [
        *((published + theirs, ours + our) for published, ours in blocks for theirs, our in parts),
        ("encoder.down.{i}.downsample.conv.conv.", "encoder.trunk.levels.{i}.resample.conv."),
        *((f"{published}upsample.conv.conv.", f"{ours}resample.conv.") for published, ours in levels[1:]),
        ("encoder.conv_in.conv.", "encoder.trunk.stem."),
        ("encoder.norm_out.norm.", "encoder.head.norm."),
        ("encoder.conv_out.conv.", "encoder.head.conv."),
        ("decoder.conv_in.conv.", "decoder.stem."),
        ("decoder.norm_out.norm.", "decoder.norm."),
        ("decoder.conv_out.conv.", "decoder.head."),
    ]


CHECKPOINT = KeyMap(*key_rules(), layout=("vae",), ignore=("quantizer.lfq.mask", "quantize.lfq.mask"))

# Grids (height, width) of 13 scales, for each ratio of height and width from 1 to 3.
SCHEDULES = (
    "1,1 2,2 4,4 6,6 8,8 12,12 16,16 20,20 24,24 32,32 40,40 48,48 64,64",
    "1,1 2,2 3,3 5,4 10,8 15,12 20,16 25,20 30,24 35,28 45,36 55,44 70,56",
    "1,1 2,2 4,3 8,6 12,9 16,12 20,15 24,18 28,21 36,27 48,36 60,45 72,54",
    "1,1 2,2 3,2 6,4 9,6 15,10 21,14 27,18 33,22 39,26 48,32 63,42 78,52",
    "1,1 2,2 3,3 7,4 11,6 14,8 21,12 28,16 35,20 42,24 56,32 70,40 84,48",
    "1,1 2,2 4,2 6,3 10,5 16,8 22,11 30,15 38,19 46,23 60,30 74,37 90,45",
    "1,1 2,2 5,2 10,4 15,6 20,8 25,10 30,12 40,16 50,20 65,26 80,32 100,40",
    "1,1 2,2 6,2 9,3 15,5 21,7 27,9 36,12 45,15 54,18 72,24 90,30 111,37",
)
NUM_SCALES = (7, 10, 13)  # of images of about 0.06, 0.25 and 1 megapixel


def pyramids() -> tuple[Scales, ...]:
    """Return the scales of every size: for each number of them square, then higher than wide, and wider than high."""
    high = [tuple((int(h), int(w)) for h, _, w in (pair.partition(",") for pair in row.split())) for row in SCHEDULES]
    wide = [tuple((w, h) for h, w in scales) for scales in high[1:]]
    return tuple(scales[:number] for number in NUM_SCALES for scales in (*high, *wide))


SCALES, *OTHER_SCALES = pyramids()

D32 = register(
    "infinity-vae-d32",
    Infinity,
    spec=TokenizerSpec(
        modality="image",
        quantizer="multi-scale-bsq",
        codebook_sizes=(2**32,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        scales=SCALES,
        other_scales=tuple(OTHER_SCALES),
        variable_size=False,
        code_license="MIT",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2412.04431",
        source="https://github.com/FoundationVision/Infinity",
    ),
    config={"dim": 32},
    hub=HubSource("FoundationVision/Infinity", "infinity_vae_d32reg.pth"),
    keys=CHECKPOINT,
    card="infinity",
    figures={
        "rFID, ImageNet 256x256": 0.75,
        "PSNR, ImageNet 256x256": 21.9,
        "rFID, ImageNet 512x512": 0.32,
        "PSNR, ImageNet 512x512": 23.6,
    },
)
register(
    replace(
        D32,
        "infinity-vae-d32-noreg",
        hub=HubSource("FoundationVision/Infinity", "infinity_vae_d32.pth"),
        figures={
            "rFID, ImageNet 256x256": 0.61,
            "PSNR, ImageNet 256x256": 22.7,
            "rFID, ImageNet 512x512": 0.23,
            "PSNR, ImageNet 512x512": 24.4,
        },
    )
)
register(
    replace(
        D32,
        "infinity-vae-d16",
        codebook_sizes=(2**16,),
        config={"dim": 16},
        hub=HubSource("FoundationVision/Infinity", "infinity_vae_d16.pth"),
        figures={
            "rFID, ImageNet 256x256": 1.22,
            "PSNR, ImageNet 256x256": 20.9,
            "rFID, ImageNet 512x512": 0.31,
            "PSNR, ImageNet 512x512": 22.6,
        },
    )
)
register(
    replace(
        D32,
        "infinity-vae-d24",
        codebook_sizes=(2**24,),
        config={"dim": 24},
        hub=HubSource("FoundationVision/Infinity", "infinity_vae_d24.pth"),
        figures={
            "rFID, ImageNet 256x256": 0.75,
            "PSNR, ImageNet 256x256": 22.0,
            "rFID, ImageNet 512x512": 0.30,
            "PSNR, ImageNet 512x512": 23.5,
        },
    )
)
register(
    replace(
        D32,
        "infinity-vae-d64",
        codebook_sizes=(2,) * 64,
        config={"dim": 64},
        hub=HubSource("FoundationVision/Infinity", "infinity_vae_d64.pth"),
        figures={
            "rFID, ImageNet 256x256": 0.33,
            "PSNR, ImageNet 256x256": 24.9,
            "rFID, ImageNet 512x512": 0.15,
            "PSNR, ImageNet 512x512": 26.4,
        },
    )
)
alias("infinity", "infinity-vae-d32")
