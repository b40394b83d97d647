"""FQGAN: an image to two or three codes per position, each from a codebook of its own with 16,384 entries, and back.

Paper: Factorized Visual Tokenization and Generation (arXiv 2411.16681).
Reference: showlab/FQGAN at dc34256.
LlamaGen's encoder and decoder, with one small transformer per codebook between the encoder and the quantizer. The
first codebook is the visual one; the others are trained towards features of CLIP and DINOv2. The transformers have
learned positions for 256x256 pixels, so no other size is taken. The heads that predict features in training are left
out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.transformer import TransformerBlock
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk
from zoo.models.image.llamagen import KEYS, NECK
from zoo.quantizers import FactorizedVQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class Adapter(nn.Module):
    """Features `[B, channels, h, w]` to those of one codebook, by attention over all `positions` = h * w."""

    def __init__(self, channels: int, positions: int, depth: int, num_heads: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(positions, channels) / channels**0.5)
        self.norm_pre = nn.LayerNorm(channels)
        self.blocks = nn.Sequential(*(TransformerBlock(channels, num_heads) for _ in range(depth)))
        self.norm_post = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        tokens = rearrange(features, "b c h w -> b (h w) c")
        tokens = self.norm_post(self.blocks(self.norm_pre(tokens + self.positional_embedding)))
        return rearrange(tokens, "b (h w) c -> b c h w", h=features.shape[2])


class Encoder(nn.Module):
    """Images `[B, 3, H, W]` to the latents of all codebooks side by side, `[B, dim, h, w]`."""

    def __init__(self, trunk: EncoderTrunk, branches: Sequence[nn.Module]):
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class FQGAN(Tokenizer):
    """Image tokenizer with factorized codebooks.

    Images `[B, 3, 256, 256]` in [0, 1] (nano: 128x128); codes `[B, num_codebooks, h, w]`. The visual codebook comes
    first, then the semantic one, or the two semantic ones: mid-level (DINOv2), then high-level (CLIP).

    Args:
        multipliers: channels of each resolution as multiples of `width`, finest first.
        width: channels at full resolution. num_blocks: residual blocks per resolution of the encoder; the decoder has
            one more. dim: latent channels of one codebook.
        depth: blocks of each codebook's transformer. num_heads: heads of its attention.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "halved-bicubic"
    small: ClassVar = {"width": 8, "num_blocks": 1, "depth": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        multipliers: tuple[int, ...],
        width: int = 128,
        num_blocks: int = 2,
        dim: int = 8,
        depth: int = 6,
        num_heads: int = 8,
    ):
        super().__init__(spec)
        assert spec.resolution is not None
        channels, positions = width * multipliers[-1], math.prod(spec.grid(spec.resolution))
        branches = [
            nn.Sequential(
                OrderedDict(
                    adapter=Adapter(channels, positions, depth, num_heads), head=EncoderHead(channels, NECK, dim)
                )
            )
            for _ in spec.codebook_sizes
        ]
        self.encoder = Encoder(EncoderTrunk(width, multipliers, num_blocks), branches)
        self.quantizer = FactorizedVQ(dim * spec.num_codebooks, spec.codebook_sizes)
        self.decoder = Decoder(width, multipliers, num_blocks, NECK, dim * spec.num_codebooks)


def branch_keys(position: int, name: str, adapter: str) -> tuple[tuple[str, str], ...]:
    """Return the rules for the codebook `name`, the `position`-th of the decoder's input."""
    ours, theirs = f"encoder.branches.{position}.", f"encoder.{adapter}.0."
    return (
        (f"{theirs}ln_pre.", f"{ours}adapter.norm_pre."),
        (f"{theirs}transformer.{{i}}.ln_1.", f"{ours}adapter.blocks.{{i}}.norm1."),
        (f"{theirs}transformer.{{i}}.attn.", f"{ours}adapter.blocks.{{i}}.attention."),
        (f"{theirs}transformer.{{i}}.ln_2.", f"{ours}adapter.blocks.{{i}}.norm2."),
        (f"{theirs}transformer.{{i}}.mlp.c_fc.", f"{ours}adapter.blocks.{{i}}.mlp.0."),
        (f"{theirs}transformer.{{i}}.mlp.c_proj.", f"{ours}adapter.blocks.{{i}}.mlp.2."),
        (f"{theirs}ln_post.", f"{ours}adapter.norm_post."),
        (theirs, f"{ours}adapter."),
        (f"encoder.norm_out_{name}.", f"{ours}head.norm."),
        (f"encoder.conv_out_{name}.", f"{ours}head.conv."),
        (f"quant_conv_{name}.", f"{ours}head.project."),
        (f"quantize_{name}.embedding.weight", f"quantizer.layers.{position}.codebook"),
    )


# The decoder concatenates the visual code vectors first, though the reference's dual `encode` returns them last.
DUAL = KeyMap(
    *KEYS,
    *branch_keys(0, "vis", "visual_head"),
    *branch_keys(1, "sem", "semantic_head"),
    layout=("model",),
    ignore=("feat_pred_head.", "quantize_vis.codebook_used", "quantize_sem.codebook_used"),
)
TRIPLE = KeyMap(
    *KEYS,
    *branch_keys(0, "vis", "visual_head"),
    *branch_keys(1, "sem_mid", "semantic_head_mid"),
    *branch_keys(2, "sem_high", "semantic_head_high"),
    layout=("model",),
    ignore=(
        "mid_sem_feat_pred.",
        "high_sem_feat_pred.",
        "quantize_vis.codebook_used",
        "quantize_sem_mid.codebook_used",
        "quantize_sem_high.codebook_used",
    ),
)


F8, F16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)

DUAL_16 = register(
    "fqgan-dual-16",
    FQGAN,
    spec=TokenizerSpec(
        modality="image",
        quantizer="factorized-vq",
        codebook_sizes=(16384, 16384),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        variable_size=False,
        code_license="CC-BY-NC-4.0",
        weights_license="CC-BY-NC-4.0",
        paper="https://arxiv.org/abs/2411.16681",
        source="https://github.com/showlab/FQGAN",
    ),
    config={"multipliers": F16},
    hub=HubSource("ZechenBai/FQGAN", "fqgan_dual_ds16.pt"),
    keys=DUAL,
    card="fqgan",
    figures={"rFID, ImageNet 256x256": 0.94, "PSNR, ImageNet 256x256": 22.02},
)
TRIPLE_16 = register(
    replace(
        DUAL_16,
        "fqgan-triple-16",
        codebook_sizes=(16384, 16384, 16384),
        hub=HubSource("ZechenBai/FQGAN", "fqgan_triple_ds16.pt"),
        keys=TRIPLE,
        figures={"rFID, ImageNet 256x256": 0.76, "PSNR, ImageNet 256x256": 22.73},
    )
)
register(
    replace(
        DUAL_16,
        "fqgan-dual-8",
        downsample=(8, 8),
        config={"multipliers": F8},
        hub=HubSource("ZechenBai/FQGAN", "fqgan_dual_ds8.pt"),
        figures={"rFID, ImageNet 256x256": 0.32, "PSNR, ImageNet 256x256": 26.27},
    )
)
register(
    replace(
        TRIPLE_16,
        "fqgan-triple-8",
        downsample=(8, 8),
        config={"multipliers": F8},
        hub=HubSource("ZechenBai/FQGAN", "fqgan_triple_ds8.pt"),
        figures={"rFID, ImageNet 256x256": 0.24, "PSNR, ImageNet 256x256": 27.58},
    )
)
alias("fqgan", "fqgan-triple-8")

# Trained here, by `trainers/recipes/fqgan-nano.yaml`; ships with the package. 640 bytes of codes for 128x128.
register(
    replace(
        DUAL_16,
        "fqgan-nano",
        codebook_sizes=(1024, 1024),
        downsample=(8, 8),
        resolution=(128, 128),
        code_license="Apache-2.0",
        weights_license="ImageNet non-commercial",
        config={"multipliers": (1, 2, 4, 8), "width": 8, "num_blocks": 1, "depth": 1, "num_heads": 4},
        weights="weights/fqgan-nano.safetensors",
        card="fqgan-nano",
    )
)
