"""VQGAN: an image to one code for each 16x16, 8x8 or 4x4 pixels, and back.

Papers: Taming Transformers for High-Resolution Image Synthesis (CVPR 2021, arXiv 2012.09841), High-Resolution Image
Synthesis with Latent Diffusion Models (CVPR 2022, arXiv 2112.10752). References: CompVis/taming-transformers at
3ba01b24, CompVis/latent-diffusion at a506df57.
The convolutional tokenizer that most later ones descend from; latent diffusion's VQ models are the same network with
few latent channels. Latents and rows are compared as they are, in Euclidean distance: nothing is normalised. The Gumbel
variant takes the code of the largest of 8,192 logits instead. Its reference adds noise in evaluation too, so that no
two encodings are equal; here there is noise in training alone.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from zoo.checkpoints import KeyMap
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk, taming_keys
from zoo.modalities.image import Interpolation
from zoo.quantizers import create
from zoo.registry import FileSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class VQGAN(Tokenizer):
    """Image tokenizer with one codebook, whose quantizer is `spec.quantizer`: "vq" or "gumbel-vq".

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 1, h, w]`.

    Args:
        multipliers: channels of each resolution as multiples of `width`, finest first.
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more.
        neck: channels between the convolutions and the code space. dim: latent channels.
        attention: whether there is attention after each block of the coarsest resolution, whatever the image size.
        middle_attention: whether there is attention between the two blocks in the middle.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation: Interpolation = "opencv"
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        multipliers: tuple[int, ...],
        width: int = 128,
        num_blocks: int = 2,
        neck: int = 256,
        dim: int = 256,
        attention: bool = True,
        middle_attention: bool = True,
    ):
        super().__init__(spec)
        where = {"attention": attention, "middle_attention": middle_attention}
        trunk = EncoderTrunk(width, multipliers, num_blocks, **where)
        head = EncoderHead(width * multipliers[-1], neck, dim)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = create(spec.quantizer, dim, codebook_size=spec.codebook_sizes[0])
        self.decoder = Decoder(width, multipliers, num_blocks, neck, dim, **where)


class ChameleonVQGAN(VQGAN):
    """VQGAN as Chameleon, Anole and Lumina-mGPT use it; arguments, images and codes as there."""

    interpolation = "lanczos"


def checkpoint(num_levels: int, codebook: str = "quantize.embedding.weight") -> KeyMap:
    """Return the key map of the authors' files, for a number of resolutions and the name of the codebook."""
    return KeyMap(
        *taming_keys(num_levels),
        (codebook, "quantizer.codebook"),
        ("quantize.proj.weight", "quantizer.project.weight", partial(torch.flatten, start_dim=1)),
        ("quantize.proj.bias", "quantizer.project.bias"),
        layout=("state_dict",),
        ignore=("loss.",),
    )


F16, F8, F8_LDM, F4 = (1, 1, 2, 2, 4), (1, 1, 2, 4), (1, 2, 2, 4), (1, 2, 4)
HEIDELBERG = "https://heibox.uni-heidelberg.de"
VALIDATION, TRAINING = "rFID, validation images of 256x256", "rFID, training images of 256x256"

IMAGENET_16384 = register(
    "vqgan-imagenet-f16-16384",
    VQGAN,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(16384,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        code_license="MIT",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2012.09841",
        source="https://github.com/CompVis/taming-transformers",
    ),
    config={"multipliers": F16},
    hub=FileSource(f"{HEIDELBERG}/d/a7530b09fed84f80a887/ (ckpts/last.ckpt)"),
    keys=checkpoint(len(F16)),
    card="vqgan",
    figures={VALIDATION: 4.98, TRAINING: 7.41},
)
register(
    replace(
        IMAGENET_16384,
        "vqgan-imagenet-f16-1024",
        codebook_sizes=(1024,),
        hub=FileSource(f"{HEIDELBERG}/d/8088892a516d4e3baf92/ (ckpts/last.ckpt)"),
        figures={VALIDATION: 7.94, TRAINING: 10.54},
    )
)
register(
    replace(
        IMAGENET_16384,
        "vqgan-gumbel-f8-8192",
        quantizer="gumbel-vq",
        codebook_sizes=(8192,),
        downsample=(8, 8),
        config={"multipliers": F8},
        hub=FileSource(f"{HEIDELBERG}/d/2e5662443a6b4307b470/ (ckpts/last.ckpt)"),
        keys=checkpoint(len(F8), "quantize.embed.weight"),
        figures={VALIDATION: 1.49, TRAINING: 3.24},
    )
)
alias("vqgan", "vqgan-gumbel-f8-8192")

LDM_F4 = register(
    replace(
        IMAGENET_16384,
        "ldm-vq-f4",
        codebook_sizes=(8192,),
        downsample=(4, 4),
        paper="https://arxiv.org/abs/2112.10752",
        source="https://github.com/CompVis/latent-diffusion",
        config={"multipliers": F4, "neck": 3, "dim": 3, "attention": False},
        hub=FileSource("https://ommer-lab.com/files/latent-diffusion/vq-f4.zip (model.ckpt)"),
        keys=checkpoint(len(F4)),
        figures={"rFID": 0.58, "PSNR": 27.43},
    )
)
register(
    replace(
        LDM_F4,
        "ldm-vq-f4-noattn",
        config={"middle_attention": False},
        hub=FileSource(f"{HEIDELBERG}/f/9c6681f64bb94338a069/?dl=1"),
        figures={"rFID": 1.06, "PSNR": 25.21},
    )
)
LDM_F8 = register(
    replace(
        LDM_F4,
        "ldm-vq-f8",
        codebook_sizes=(16384,),
        downsample=(8, 8),
        config={"multipliers": F8_LDM, "neck": 4, "dim": 4, "attention": True},
        hub=FileSource("https://ommer-lab.com/files/latent-diffusion/vq-f8.zip (model.ckpt)"),
        keys=checkpoint(len(F8_LDM)),
        figures={"rFID": 1.14, "PSNR": 23.07},
    )
)
register(
    replace(
        LDM_F8,
        "ldm-vq-f8-n256",
        codebook_sizes=(256,),
        hub=FileSource("https://ommer-lab.com/files/latent-diffusion/vq-f8-n256.zip (model.ckpt)"),
        figures={"rFID": 1.49, "PSNR": 22.35},
    )
)
register(
    replace(
        LDM_F8,
        "ldm-vq-f16",
        downsample=(16, 16),
        config={"multipliers": F16, "neck": 8, "dim": 8},
        hub=FileSource(f"{HEIDELBERG}/f/0e42b04e2e904890a9b6/?dl=1"),
        keys=checkpoint(len(F16)),
        figures={"rFID": 5.15, "PSNR": 20.83},
    )
)
alias("ldm-vq", "ldm-vq-f4")

# The file's configuration is not in the authors' repository; that there is attention in the middle alone is recalled.
register(
    "chameleon-vqgan",
    ChameleonVQGAN,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(8192,),
        downsample=(16, 16),
        channels=3,
        resolution=(512, 512),
        code_license="Chameleon Research License, non-commercial",
        weights_license="Chameleon Research License, non-commercial",
        paper="https://arxiv.org/abs/2405.09818",
        source="https://github.com/facebookresearch/chameleon",
    ),
    config={"multipliers": F16, "attention": False},
    hub=FileSource("Meta's request form (tokenizer/vqgan.ckpt)"),
    keys=checkpoint(len(F16)),
    card="chameleon-vqgan",
)
alias("anole-vqgan", "chameleon-vqgan")
alias("lumina-mgpt-vqgan", "chameleon-vqgan")
