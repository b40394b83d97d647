"""LlamaGen VQ: an image to one of 16,384 codes per position, and back.

Paper: Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation (arXiv 2406.06525).
Reference: FoundationVision/LlamaGen at ce98ec4.
A VQGAN with eight latent channels, whose attention follows each residual block of the coarsest level, whatever the
image size. Norms and attention see the whole image, so an image coded in tiles is not the image coded at once. Latents
and codebook rows are scaled to length 1 at every use: the stored rows have any length, and the decoder receives the
scaled row.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from zoo.checkpoints import KeyMap
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk, named_levels
from zoo.quantizers import VectorQuantizer
from zoo.registry import FileSource, HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

NECK = 256  # channels between the convolutions and the code space


class LlamaGenVQ(Tokenizer):
    """Image tokenizer with one l2-normalised codebook.

    Images `[B, 3, H, W]` in [0, 1] of any size; codes `[B, 1, h, w]`.

    Args:
        multipliers: channels of each resolution as multiples of `width`, finest first.
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more. dim: latent channels.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "halved-bicubic"
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
        head = EncoderHead(width * multipliers[-1], NECK, dim)
        self.encoder = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.quantizer = VectorQuantizer(dim, *spec.codebook_sizes, distance="cosine")
        self.decoder = Decoder(width, multipliers, num_blocks, NECK, dim)


# Published names of an `EncoderTrunk` at `encoder.trunk` and a `Decoder` at `decoder`.
KEYS = (
    ("encoder.conv_in.", "encoder.trunk.stem."),
    ("encoder.conv_blocks.{i}.res.{j}.nin_shortcut.", "encoder.trunk.levels.{i}.blocks.{j}.shortcut."),
    ("encoder.conv_blocks.{i}.res.", "encoder.trunk.levels.{i}.blocks."),
    ("encoder.conv_blocks.{i}.attn.{j}.proj_out.", "encoder.trunk.levels.{i}.attentions.{j}.out."),
    ("encoder.conv_blocks.{i}.attn.", "encoder.trunk.levels.{i}.attentions."),
    ("encoder.conv_blocks.{i}.downsample.", "encoder.trunk.levels.{i}.resample."),
    ("encoder.mid.1.proj_out.", "encoder.trunk.mid.1.out."),
    ("encoder.mid.", "encoder.trunk.mid."),
    ("post_quant_conv.", "decoder.project."),
    ("decoder.conv_in.", "decoder.stem."),
    ("decoder.mid.1.proj_out.", "decoder.mid.1.out."),
    ("decoder.conv_blocks.{i}.res.{j}.nin_shortcut.", "decoder.levels.{i}.blocks.{j}.shortcut."),
    ("decoder.conv_blocks.{i}.res.", "decoder.levels.{i}.blocks."),
    ("decoder.conv_blocks.{i}.attn.{j}.proj_out.", "decoder.levels.{i}.attentions.{j}.out."),
    ("decoder.conv_blocks.{i}.attn.", "decoder.levels.{i}.attentions."),
    ("decoder.conv_blocks.{i}.upsample.", "decoder.levels.{i}.resample."),
    ("decoder.norm_out.", "decoder.norm."),
    ("decoder.conv_out.", "decoder.head."),
)

WHOLE = (
    *KEYS,
    ("encoder.norm_out.", "encoder.head.norm."),
    ("encoder.conv_out.", "encoder.head.conv."),
    ("quant_conv.", "encoder.head.project."),
    ("quantize.embedding.weight", "quantizer.codebook"),
)
CHECKPOINT = KeyMap(*WHOLE, layout=("model",), ignore=("quantize.codebook_used",))

# Janus's files hold the whole language model: the authors', and those in the layout of transformers.
JANUS = KeyMap(
    *((f"gen_vision_model.{published}", ours) for published, ours in WHOLE),
    ignore=(
        "gen_vision_model.quantize.codebook_used",
        "vision_model.",
        "aligner.",
        "gen_aligner.",
        "gen_head.",
        "gen_embed.",
        "language_model.",
    ),
)
PORTED = named_levels(("encoder.down.{i}.", "encoder.trunk.levels.{i}."), ("decoder.up.{i}.", "decoder.levels.{i}."))
JANUS_PORT = KeyMap(
    *((f"model.vqmodel.{published}", ours) for published, ours in PORTED),
    ("model.vqmodel.quantize.embedding.weight", "quantizer.codebook"),
    ignore=(
        "model.vision_model.",
        "model.aligner.",
        "model.generation_aligner.",
        "model.generation_head.",
        "model.generation_embeddings.",
        "model.language_model.",
        "lm_head.",
    ),
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
register(
    replace(
        VQ_16,
        "janus-vq-16",
        resolution=(384, 384),
        weights_license="DeepSeek Model License, with use restrictions",
        paper="https://arxiv.org/abs/2410.13848",
        source="https://github.com/deepseek-ai/Janus",
        hub=(FileSource("https://huggingface.co/deepseek-ai (Janus, Janus-Pro)", JANUS), FileSource(keys=JANUS_PORT)),
    )
)
