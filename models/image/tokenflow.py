"""TokenFlow: an image to a pyramid of codes, each of which names a semantic and a pixel vector, and back to both.

Paper: TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation (CVPR 2025, arXiv 2412.03069).
Reference: ByteVisionLab/TokenFlow at 9812da01.
Two encoders, a fine-tuned CLIP or SigLIP for meaning and LlamaGen's for pixels, give 32 and 8 channels of one latent.
It is quantized in `zoo.quantizers.MultiScaleQuantizer`, scale by scale: each codes what the coarser ones left. A code
is one index into two codebooks, a semantic and a pixel one, whose rows are nearest together
(`zoo.quantizers.SharedMappingVQ`). The pixel channels decode to the image, the semantic ones to the teacher's features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.transformer import TransformerBlock, stacked, with_key_bias
from zoo.layers.vqgan import Decoder, EncoderHead, EncoderTrunk
from zoo.models.image.llamagen import KEYS
from zoo.quantizers import MultiScaleQuantizer, SharedMappingVQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec, squares
from zoo.tokenizer import Tokenizer

MULTIPLIERS = (1, 1, 2, 2, 4)
SEMANTIC_DIM, PIXEL_DIM = 32, 8  # latent channels
NECK = 256  # channels between the convolutions and the pixel channels
SEMANTIC_HEADS, SEMANTIC_LAYERS = 12, 3  # of the decoder of features
POSITIONS_OFFSET = 0.1  # added to the new grid's side when positions are resampled, which changes values visibly


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class VisionTransformer(nn.Module):
    """The vision tower of CLIP or SigLIP: images `[B, 3, H, W]` to features `[B, h * w, width]` of their patches.

    CLIP has a class token, which is dropped at the end, and norms before and after its layers. Of SigLIP, the authors
    take what the layer before the last one returns, so that one is left out, and the norm after it.

    Args:
        grid: patches along a side of the images that positions were learned for. patch: their side in pixels.
    """

    def __init__(
        self,
        kind: Literal["clip", "siglip"],
        grid: int,
        patch: int,
        width: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
    ):
        super().__init__()
        is_clip = kind == "clip"
        activation: Callable[[], nn.Module] = QuickGELU if is_clip else partial(nn.GELU, approximate="tanh")
        epsilon = 1e-5 if is_clip else 1e-6
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=not is_clip)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5) if is_clip else None
        self.positions = nn.Parameter(torch.randn(grid**2 + is_clip, width) * width**-0.5)
        self.norm_pre = nn.LayerNorm(width) if is_clip else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(width, num_heads, hidden_dim, epsilon=epsilon, activation=activation)
                for _ in range(num_layers)
            )
        )
        self.norm_post = nn.LayerNorm(width) if is_clip else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image)
        side = x.shape[-1]
        x = rearrange(x, "b c h w -> b (h w) c")
        if self.class_token is None:
            return self.norm_post(self.blocks(self.norm_pre(x + self.positions)))
        x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1) + resampled(self.positions, side)
        return self.norm_post(self.blocks(self.norm_pre(x)))[:, 1:]


def resampled(positions: Tensor, side: int) -> Tensor:
    """Return the positions `[1 + grid * grid, width]` of a class token and a square grid for a grid of another side."""
    first, rest = positions[:1], positions[1:]
    grid = round(len(rest) ** 0.5)
    if grid == side:
        return positions
    planes = rearrange(rest, "(h w) c -> 1 c h w", h=grid)
    planes = F.interpolate(planes, scale_factor=(side + POSITIONS_OFFSET) / grid, mode="bicubic")
    return torch.cat([first, rearrange(planes, "1 c h w -> (h w) c")])


class Encoder(nn.Module):
    """Images `[B, 3, H, W]` to latents `[B, 32 + 8, h, w]`, the semantic channels first.

    pixel_side: side to which the image is resized for the encoder of pixels; None: it is not resized.
    """

    def __init__(
        self, vision: VisionTransformer, vision_width: int, width: int, num_blocks: int, pixel_side: int | None
    ):
        super().__init__()
        self.vision = vision
        self.task = nn.Sequential(
            nn.Linear(vision_width, vision_width), nn.Tanh(), nn.Linear(vision_width, SEMANTIC_DIM)
        )
        trunk = EncoderTrunk(width, MULTIPLIERS, num_blocks)
        head = EncoderHead(width * MULTIPLIERS[-1], NECK, PIXEL_DIM)
        self.pixels = nn.Sequential(OrderedDict(trunk=trunk, head=head))
        self.pixel_side = pixel_side

    def forward(self, image: Tensor) -> Tensor:
        semantic = self.task(self.vision(image))
        if self.pixel_side is not None:
            image = F.interpolate(image, size=(self.pixel_side, self.pixel_side), mode="bicubic")
        pixels = self.pixels(image)
        return torch.cat([rearrange(semantic, "b (h w) c -> b c h w", h=pixels.shape[2]), pixels], dim=1)


class SemanticDecoder(nn.Module):
    """The semantic channels of code vectors `[B, 32, h, w]` to features of the teacher `[B, h * w, teacher_width]`."""

    def __init__(self, grid: int, width: int, teacher_width: int):
        super().__init__()
        self.project = nn.Conv2d(SEMANTIC_DIM, width, 1)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1, 1 + grid**2, width) * width**-0.5)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, SEMANTIC_HEADS, epsilon=1e-6) for _ in range(SEMANTIC_LAYERS))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.task = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, teacher_width))

    def forward(self, latent: Tensor) -> Tensor:
        side = latent.shape[-1]
        x = rearrange(self.project(latent), "b c h w -> b (h w) c")
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + resampled(self.positions[0], side)
        return self.task(self.norm(self.blocks(x)[:, 1:]))


class TokenFlow(Tokenizer):
    """Image tokenizer whose codes stand for pixels and for the features of a teacher.

    Images `[B, 3, H, W]` in [0, 1] of the variant's one size; codes `[B, 1, positions]`, the maps of `spec.scales` one
    after the other, coarse to fine, each row by row. The first scales decode alone: `num_scales=` of `encode`, `decode`
    and `features`. Latents are `[B, 40, h, w]` on the finest grid: 32 semantic channels, then 8 of pixels. Language
    models read them, as `embed` returns them. `features(codes)` is `[B, h * w, teacher_width]`, row by row.

    Args:
        vision: kind of the semantic encoder. vision_grid: patches along a side that its positions were learned for.
        vision_patch: side of a patch. vision_width, vision_layers, vision_heads, vision_hidden: channels, layers and
            heads, and channels inside the MLPs.
        teacher_width: length of a feature of the teacher.
        width: channels of the encoder of pixels at full resolution. num_blocks: its residual blocks per resolution.
        decoder_width, decoder_blocks: the same of the decoder of pixels, which has one block more.
        pixel_side: side to which the image is resized for the encoder of pixels, and that its decoder returns; None:
            that of the image.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "halved-bicubic"
    teacher_features = (
        "the teacher's features of the patches of the image, row by row: [batch, positions, 512] in the joint space of "
        "CLIP ViT-B/16 (tokenflow-b), [batch, positions, 1152] of SigLIP so400m/14-384 (tokenflow-siglip)"
    )
    small: ClassVar = {
        "width": 8,
        "num_blocks": 1,
        "decoder_width": 8,
        "decoder_blocks": 1,
        "vision_width": 48,
        "vision_layers": 1,
        "vision_heads": 4,
        "vision_hidden": 64,
    }

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        vision: Literal["clip", "siglip"],
        vision_grid: int,
        vision_patch: int,
        vision_width: int,
        vision_layers: int,
        vision_heads: int,
        vision_hidden: int,
        teacher_width: int,
        width: int = 128,
        num_blocks: int = 2,
        decoder_width: int,
        decoder_blocks: int,
        pixel_side: int | None = None,
    ):
        super().__init__(spec)
        tower = VisionTransformer(
            vision, vision_grid, vision_patch, vision_width, vision_layers, vision_heads, vision_hidden
        )
        self.encoder = Encoder(tower, vision_width, width, num_blocks, pixel_side)
        self.quantizer = MultiScaleQuantizer(
            SharedMappingVQ((SEMANTIC_DIM, PIXEL_DIM), *spec.codebook_sizes), spec.pyramids, enlargement="bicubic"
        )
        self.decoder = Decoder(decoder_width, MULTIPLIERS, decoder_blocks, NECK, PIXEL_DIM)
        self.semantic_decoder = SemanticDecoder(vision_grid, vision_width, teacher_width)

    def from_latent(self, latent: Tensor) -> Tensor:
        image = self.decoder(latent[:, SEMANTIC_DIM:])
        if self.encoder.pixel_side is not None:
            image = F.interpolate(image, size=self.spec.resolution, mode="bicubic")
        return image

    def to_features(self, latent: Tensor) -> Tensor:
        return self.semantic_decoder(latent[:, :SEMANTIC_DIM])


Rules = tuple[tuple[str, str] | tuple[str | tuple[str, ...], str, Callable[..., Tensor]], ...]

# Our names for LlamaGen's encoder, which is `encoder.pixels` here.
PIXEL_KEYS = [(theirs, ours.replace("encoder.", "encoder.pixels.", 1)) for theirs, ours in KEYS]

COMMON: Rules = (
    *PIXEL_KEYS,
    ("encoder.norm_out.", "encoder.pixels.head.norm."),
    ("encoder.conv_out.", "encoder.pixels.head.conv."),
    ("quant_conv.", "encoder.pixels.head.project."),
    ("encode_task_layer.", "encoder.task."),
    ("quantize.embedding_vqkd.weight", "quantizer.layer.codebooks.0"),
    ("quantize.embedding_vqgan.weight", "quantizer.layer.codebooks.1"),
    ("decoder_vqkd.patch_embed.proj.", "semantic_decoder.project."),
    ("decoder_vqkd.cls_token", "semantic_decoder.class_token"),
    ("decoder_vqkd.pos_embed", "semantic_decoder.positions"),
    ("decoder_vqkd.blocks.{i}.attn.qkv.weight", "semantic_decoder.blocks.{i}.attention.in_proj_weight"),
    (
        ("decoder_vqkd.blocks.{i}.attn.q_bias", "decoder_vqkd.blocks.{i}.attn.v_bias"),
        "semantic_decoder.blocks.{i}.attention.in_proj_bias",
        with_key_bias,
    ),
    ("decoder_vqkd.blocks.{i}.attn.proj.", "semantic_decoder.blocks.{i}.attention.out_proj."),
    ("decoder_vqkd.blocks.{i}.mlp.fc1.", "semantic_decoder.blocks.{i}.mlp.0."),
    ("decoder_vqkd.blocks.{i}.mlp.fc2.", "semantic_decoder.blocks.{i}.mlp.2."),
    ("decoder_vqkd.blocks.", "semantic_decoder.blocks."),
    ("decoder_vqkd.fc_norm.", "semantic_decoder.norm."),
    ("decode_task_layer.", "semantic_decoder.task."),
)
CLIP_KEYS = (
    ("encoder_vqkd.class_embedding", "encoder.vision.class_token"),
    ("encoder_vqkd.positional_embedding", "encoder.vision.positions"),
    ("encoder_vqkd.conv1.", "encoder.vision.patches."),
    ("encoder_vqkd.ln_pre.", "encoder.vision.norm_pre."),
    ("encoder_vqkd.ln_post.", "encoder.vision.norm_post."),
    ("encoder_vqkd.transformer.resblocks.{i}.attn.", "encoder.vision.blocks.{i}.attention."),
    ("encoder_vqkd.transformer.resblocks.{i}.ln_1.", "encoder.vision.blocks.{i}.norm1."),
    ("encoder_vqkd.transformer.resblocks.{i}.ln_2.", "encoder.vision.blocks.{i}.norm2."),
    ("encoder_vqkd.transformer.resblocks.{i}.mlp.c_fc.", "encoder.vision.blocks.{i}.mlp.0."),
    ("encoder_vqkd.transformer.resblocks.{i}.mlp.c_proj.", "encoder.vision.blocks.{i}.mlp.2."),
)
SIGLIP = "encoder_vqkd.vision_model."
SIGLIP_LAYER = SIGLIP + "encoder.layers.{i}."
SIGLIP_KEYS: Rules = (
    (f"{SIGLIP}embeddings.position_embedding.weight", "encoder.vision.positions"),
    (f"{SIGLIP}embeddings.patch_embedding.", "encoder.vision.patches."),
    *(
        (
            tuple(f"{SIGLIP_LAYER}self_attn.{name}_proj.{kind}" for name in "qkv"),
            f"encoder.vision.blocks.{{i}}.attention.in_proj_{kind}",
            stacked,
        )
        for kind in ("weight", "bias")
    ),
    (f"{SIGLIP_LAYER}self_attn.out_proj.", "encoder.vision.blocks.{i}.attention.out_proj."),
    (f"{SIGLIP_LAYER}layer_norm1.", "encoder.vision.blocks.{i}.norm1."),
    (f"{SIGLIP_LAYER}layer_norm2.", "encoder.vision.blocks.{i}.norm2."),
    (f"{SIGLIP_LAYER}mlp.fc1.", "encoder.vision.blocks.{i}.mlp.0."),
    (f"{SIGLIP_LAYER}mlp.fc2.", "encoder.vision.blocks.{i}.mlp.2."),
)
LAYOUT = (("ema", "model", "state_dict"),)  # the authors' loader takes the first of these that a file has

CLIP_CHECKPOINT = KeyMap(*CLIP_KEYS, *COMMON, layout=LAYOUT, ignore=("quantize.codebook_used",))
SIGLIP_CHECKPOINT = KeyMap(
    *SIGLIP_KEYS,
    *COMMON,
    layout=LAYOUT,
    # The last layer and what follows it, which the authors do not use either.
    ignore=(
        "quantize.codebook_used",
        f"{SIGLIP}encoder.layers.26.",
        f"{SIGLIP}post_layernorm.",
        f"{SIGLIP}head.",
    ),
)


CLIP_FILE = HubSource("ByteFlow-AI/TokenFlow", "tokenflow_clipb_32k_enhanced.pt")

B_256 = register(
    "tokenflow-b",
    TokenFlow,
    spec=TokenizerSpec(
        modality="image",
        quantizer="multi-scale-shared-mapping-vq",
        codebook_sizes=(32768,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        scales=squares(1, 2, 4, 6, 8, 10, 12, 14, 16),
        variable_size=False,
        code_license="Apache-2.0",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2412.03069",
        source="https://github.com/ByteVisionLab/TokenFlow",
    ),
    config={
        "vision": "clip",
        "vision_grid": 14,
        "vision_patch": 16,
        "vision_width": 768,
        "vision_layers": 12,
        "vision_heads": 12,
        "vision_hidden": 3072,
        "teacher_width": 512,
        "decoder_width": 256,
        "decoder_blocks": 4,
    },
    hub=CLIP_FILE,
    keys=CLIP_CHECKPOINT,
    card="tokenflow",
)
register(
    replace(
        B_256,
        "tokenflow-b-224",
        resolution=(224, 224),
        scales=squares(1, 2, 4, 6, 8, 10, 12, 14),
        hub=CLIP_FILE,
    )
)
register(
    replace(
        B_256,
        "tokenflow-siglip",
        resolution=(384, 384),
        downsample=(14, 14),
        scales=squares(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 22, 27),
        config={
            "vision": "siglip",
            "vision_grid": 27,
            "vision_patch": 14,
            "vision_width": 1152,
            "vision_layers": 26,
            "vision_heads": 16,
            "vision_hidden": 4304,
            "teacher_width": 1152,
            "decoder_width": 128,
            "decoder_blocks": 2,
            "pixel_side": 432,
        },
        hub=HubSource("ByteFlow-AI/TokenFlow", "tokenflow_siglip_32k.pt"),
        keys=SIGLIP_CHECKPOINT,
        figures={"rFID, ImageNet 384x384": 0.63},
    )
)
alias("tokenflow", "tokenflow-b")
