"""SEED-2: an image to 32 codes that say what is in it, and codes to a CLIP embedding of that meaning; no pixels.

Papers: Making LLaMA SEE and Draw with SEED Tokenizer (ICLR 2024, arXiv 2310.01218) and Planting a SEED of Vision in
Large Language Model (arXiv 2307.08041). Reference: AILab-CVC/SEED at 93b3cf40, models/seed_qformer.
A frozen EVA-CLIP ViT-g sees the image. A Q-Former condenses it to 32 vectors: every query sees the whole image, and
of the queries only those before it. Each vector becomes one of 8,192 codes. The decoder predicts the image embedding of
CLIP ViT-H/14 from all 32; only another network, an unCLIP diffusion pipeline, makes an image of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.transformer import TransformerBlock, stacked, with_key_bias
from zoo.parts import Part
from zoo.quantizers import VectorQuantizer
from zoo.registry import FileSource, alias, register
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer

PATCH = 14
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VIT_EPSILON, QFORMER_EPSILON = 1e-6, 1e-12  # of norms
RENDERER = "stabilityai/stable-diffusion-2-1-unclip"


class VisionTransformer(nn.Module):
    """EVA-CLIP's encoder: images `[B, 3, 14 * rows, 14 * columns]` to features `[B, 1 + rows * columns, width]`."""

    def __init__(self, patches: int, width: int, hidden_dim: int, num_layers: int, num_heads: int):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1, 1 + patches, width) * width**-0.5)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, num_heads, hidden_dim, epsilon=VIT_EPSILON) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        patches = rearrange(self.patch_embed(image), "b c h w -> b (h w) c")
        x = torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches], dim=1) + self.positions
        return self.norm(self.blocks(x))


class QFormerLayer(nn.Module):
    """Attention among queries, attention to the image in every other layer, an MLP; a norm follows each of them.

    image_width: width of the image's features; None: the layer does not see the image.
    """

    def __init__(self, width: int, num_heads: int, image_width: int | None):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width, eps=QFORMER_EPSILON)
        self.image_attention = None
        if image_width is not None:
            self.image_attention = nn.MultiheadAttention(
                width, num_heads, kdim=image_width, vdim=image_width, batch_first=True
            )
            self.image_norm = nn.LayerNorm(width, eps=QFORMER_EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_norm = nn.LayerNorm(width, eps=QFORMER_EPSILON)

    def forward(self, x: Tensor, image: Tensor, later: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, x, x, attn_mask=later, need_weights=False)[0])
        if self.image_attention is not None:
            x = self.image_norm(x + self.image_attention(x, image, image, need_weights=False)[0])
        return self.mlp_norm(x + self.mlp(x))


class CausalQFormer(nn.Module):
    """Features of an image `[B, tokens, image_width]` to one vector for each learned query, `[B, queries, width]`."""

    def __init__(self, num_queries: int, image_width: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_queries, width) * width**-0.5)
        self.norm = nn.LayerNorm(width, eps=QFORMER_EPSILON)
        self.layers = nn.ModuleList(
            QFormerLayer(width, num_heads, image_width if i % 2 == 0 else None) for i in range(num_layers)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.queries).expand(image.shape[0], -1, -1)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        for layer in self.layers:
            x = layer(x, image, later)
        return x


class Encoder(nn.Module):
    """Images `[B, 3, H, W]`, normalised as for CLIP, to `[B, dim, queries]`."""

    def __init__(self, vision: VisionTransformer, qformer: CausalQFormer, width: int, dim: int):
        super().__init__()
        self.vision = vision
        self.qformer = qformer
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.qformer(self.vision(image))).mT


class Decoder(nn.Module):
    """Code vectors `[B, dim, queries]`, all of an image, to an embedding `[B, queries * dim]` of the whole image."""

    def __init__(self, num_queries: int, dim: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.expand = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, width))
        self.positions = nn.Parameter(torch.randn(1, num_queries, width) * width**-0.5)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, num_heads, epsilon=VIT_EPSILON) for _ in range(num_layers))
        )
        self.contract = nn.Sequential(
            nn.Linear(width, width // 3, bias=False),
            nn.ReLU(),
            nn.Linear(width // 3, width // 6, bias=False),
            nn.ReLU(),
            nn.Linear(width // 6, dim, bias=False),
        )
        self.project = nn.Linear(num_queries * dim, num_queries * dim)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.contract(self.blocks(self.expand(latent.mT) + self.positions))
        return self.project(x.flatten(1))


class Recovery(nn.Module):
    """Code vectors as the decoder widens them, `[B, queries, width]`, to those of the Q-Former; for training alone."""

    def __init__(self, num_queries: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, num_queries, width) * width**-0.5)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, num_heads, epsilon=VIT_EPSILON) for _ in range(num_layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x + self.positions)


class SEED(Tokenizer):
    """Semantic image tokenizer of 32 codes, which decodes to an image embedding of CLIP.

    Images `[B, 3, 224, 224]` in [0, 1]; codes `[B, 1, 32]`; latents and codebook rows `[B, 32, 32]`, channels first;
    `features(codes)` is `[B, 1024]`. `decode` needs a diffusion pipeline, which the user loads.

    Args:
        vision_width, vision_hidden, vision_layers, vision_heads: sizes of the vision transformer.
        width, num_layers, num_heads: channels, layers and heads of the Q-Former.
        dim: latent channels. decoder_layers: transformer blocks of the decoder, as wide as the Q-Former.
        recovery_layers: transformer blocks of `Recovery`, which the authors train and never use; 0: there is none.
    """

    encode_only = (
        "its codes stand for a CLIP image embedding, which features(codes) returns; an unCLIP pipeline that you load "
        f"makes images of it: decode(codes, pipeline=StableUnCLIPImg2ImgPipeline.from_pretrained({RENDERER!r})), with "
        "the class of diffusers"
    )
    teacher_features = "the image embedding of CLIP ViT-H/14 (laion2B), not normalised: [batch, 1024], one vector"
    decode_options = ("pipeline", "generator")
    interpolation = "bicubic"
    stretches = True
    small: ClassVar = {
        "vision_width": 24,
        "vision_hidden": 48,
        "vision_layers": 2,
        "vision_heads": 2,
        "width": 48,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_layers": 1,
    }

    encoder: Encoder
    decoder: Decoder
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        vision_width: int = 1408,
        vision_hidden: int = 6144,
        vision_layers: int = 39,
        vision_heads: int = 16,
        width: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        dim: int = 32,
        decoder_layers: int = 4,
        recovery_layers: int = 0,
    ):
        super().__init__(spec)
        assert spec.num_tokens is not None and spec.resolution is not None
        height, columns = spec.resolution
        patches = (height // PATCH) * (columns // PATCH)
        vision = VisionTransformer(patches, vision_width, vision_hidden, vision_layers, vision_heads)
        qformer = CausalQFormer(spec.num_tokens, vision_width, width, num_layers, num_heads)
        self.encoder = Encoder(vision, qformer, width, dim)
        self.quantizer = VectorQuantizer(dim, *spec.codebook_sizes)
        self.decoder = Decoder(spec.num_tokens, dim, width, decoder_layers, num_heads)
        self.recovery = None
        if recovery_layers:
            self.recovery = Recovery(spec.num_tokens, width, recovery_layers, num_heads)
            self.decoder_losses = ("recovery_loss",)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    def to_latent(self, signal: Tensor) -> Tensor:
        return self.encoder(self.in_clip_range(signal))

    def in_clip_range(self, image: Tensor) -> Tensor:
        """Return an image in [0, 1] as the encoder sees it, normalised as for CLIP."""
        return (image - self.mean) / self.std

    def to_features(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)

    def forward(self, x: Tensor) -> TokenizerOutput:
        """As in `Tokenizer`, with the image embedding `[B, 1024]` as the reconstruction.

        With `recovery_layers`, `recovery_loss` is beside the quantizer's losses: 1 - the mean cosine between the
        Q-Former's vectors and those recovered from the codes.
        """
        condensed = self.encoder.qformer(self.encoder.vision(self.in_clip_range(self._check_signal(x))))
        quantized, codes, losses = self.quantizer(self.encoder.head(condensed))
        latent = quantized.movedim(-1, 1)
        if self.recovery is not None:
            recovered = self.recovery(self.decoder.expand(quantized))
            losses = {**losses, "recovery_loss": 1 - F.cosine_similarity(recovered, condensed, dim=-1).mean()}
        return TokenizerOutput(self.decoder(latent), codes.movedim(-1, 1), latent, losses)

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,
        size: int | tuple[int, ...] | None = None,
        *,
        pipeline: Any = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Render images of what codes stand for, with a diffusion pipeline; two calls give two different images.

        As the authors do, the pipeline takes 20 steps at a guidance scale of 10, without text and with the least noise
        on the embedding.

        Args:
            codes: int64 `[B, 1, 32]`.
            size: None: images have the size that the pipeline renders.
            pipeline: an unCLIP pipeline of diffusers for image embeddings of CLIP ViT-H/14, of the class
                `StableUnCLIPImg2ImgPipeline`.
            generator: source of the pipeline's noise, on its device.

        Returns:
            `[B, 3, height, width]` in [0, 1]; 768x768 with the authors' pipeline.

        Raises:
            InputError: no pipeline, or one for other embeddings; a `size`; codes as for `features`.
        """
        self._check_names(options, self.decode_options, "decode")
        if pipeline is None:
            self.check_decodes()
        if size is not None:
            raise InputError(f"{self.spec.name}: expected no size, since a pipeline has its own, got {size}")
        embedding = self.features(codes)
        widths = getattr(getattr(pipeline, "image_normalizer", None), "mean", torch.empty(0)).shape
        if not widths or widths[-1] != embedding.shape[1]:
            got = f"one for {widths[-1]}" if widths and widths[-1] else type(pipeline).__name__
            raise InputError(f"expected an unCLIP pipeline for embeddings of {embedding.shape[1]} numbers, got {got}")
        images = pipeline(
            prompt=[""] * len(embedding),
            image_embeds=embedding.to(pipeline.device, pipeline.dtype),
            noise_level=0,
            num_inference_steps=20,
            guidance_scale=10.0,
            generator=generator,
            output_type="pt",
        ).images
        return self.modality.finish(images.to(self.device))


def run_network(tokenizer: SEED, golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the network computes of an image that is normalised already."""
    vision = tokenizer.encoder.vision(golden["input"])
    condensed = tokenizer.encoder.qformer(vision)
    latent = tokenizer.encoder.head(condensed).mT
    quantized = tokenizer.embed(golden["codes"])
    return {
        "qformer_output": condensed.mT,
        "latent": latent,
        "codes": tokenizer.quantize(latent),
        "quantized": quantized,
        "reconstruction": tokenizer.to_features(quantized),
    }


SEED.parts = {"network": Part(run_network, ("input", "codes"), ("",), {"vision_layers": "vit_depth"})}


def block_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Rules for numbered transformer blocks, except for the bias of their queries, keys and values."""
    names = {
        "norm1.": "norm1.",
        "attn.qkv.weight": "attention.in_proj_weight",
        "attn.proj.": "attention.out_proj.",
        "norm2.": "norm2.",
        "mlp.fc1.": "mlp.0.",
        "mlp.fc2.": "mlp.2.",
    }
    return [(f"{published}.{{i}}.{theirs}", f"{ours}.{{i}}.{name}") for theirs, name in names.items()]


def vision_rules(prefix: str) -> tuple[Any, ...]:
    """Rules for the vision transformer, whose names begin with `prefix`; its last norm is in the other file."""
    ours, blocks = "encoder.vision.", f"{prefix}blocks.{{i}}.attn."
    return (
        (f"{prefix}patch_embed.proj.", f"{ours}patch_embed."),
        (f"{prefix}cls_token", f"{ours}class_token"),
        (f"{prefix}pos_embed", f"{ours}positions"),
        *block_rules(f"{prefix}blocks", f"{ours}blocks"),
        ((f"{blocks}q_bias", f"{blocks}v_bias"), f"{ours}blocks.{{i}}.attention.in_proj_bias", with_key_bias),
    )


def attention_rules(published: str, ours: str, *, same_width: bool) -> list[Any]:
    """Rules for attention of BERT, whose queries, keys and values are separate; ours have one weight or one bias."""
    projections = [f"{published}self.{name}." for name in ("query", "key", "value")]
    biases = (tuple(f"{projection}bias" for projection in projections), f"{ours}in_proj_bias", stacked)
    weights: list[Any]
    if same_width:
        weights = [(tuple(f"{name}weight" for name in projections), f"{ours}in_proj_weight", stacked)]
    else:
        weights = [
            (f"{name}weight", f"{ours}{letter}_proj_weight") for name, letter in zip(projections, "qkv", strict=True)
        ]
    return [*weights, biases, (f"{published}output.dense.", f"{ours}out_proj.")]


BERT, LAYER = "Qformer.bert.encoder.layer.{i}.", "encoder.qformer.layers.{i}."
RULES = (
    ("ln_vision.", "encoder.vision.norm."),
    ("query_tokens", "encoder.qformer.queries"),
    ("Qformer.bert.embeddings.LayerNorm.", "encoder.qformer.norm."),
    *attention_rules(f"{BERT}attention.", f"{LAYER}attention.", same_width=True),
    (f"{BERT}attention.output.LayerNorm.", f"{LAYER}attention_norm."),
    *attention_rules(f"{BERT}crossattention.", f"{LAYER}image_attention.", same_width=False),
    (f"{BERT}crossattention.output.LayerNorm.", f"{LAYER}image_norm."),
    (f"{BERT}intermediate_query.dense.", f"{LAYER}mlp.0."),
    (f"{BERT}output_query.dense.", f"{LAYER}mlp.2."),
    (f"{BERT}output_query.LayerNorm.", f"{LAYER}mlp_norm."),
    ("encode_task_layer.", "encoder.head."),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("decode_task_layer.", "decoder.expand."),
    ("pos_embed_image", "decoder.positions"),
    ("pos_embed", "recovery.positions"),
    *(
        rule
        for published, ours in (("blocks_image", "decoder.blocks"), ("blocks", "recovery.blocks"))
        for rule in (
            *block_rules(published, ours),
            (f"{published}.{{i}}.attn.qkv.bias", f"{ours}.{{i}}.attention.in_proj_bias"),
        )
    ),
    ("image_down.", "decoder.contract."),
    ("distill_image_proj.", "decoder.project."),
)

# The authors' model as one state dict. `Recovery` is in it, which only training needs.
WHOLE = KeyMap(
    *RULES, *vision_rules("visual_encoder."), ignore=("blocks.", "pos_embed", "Qformer.bert.embeddings.position_ids")
)
# Two files, of which each has more than is needed; the names of the rest were not published.
VISION = KeyMap(
    *vision_rules(""),
    ignore=("",),
    only=tuple(f"encoder.vision.{name}" for name in ("patch_embed.", "class_token", "positions", "blocks.")),
)
QUANTIZER = KeyMap(
    *RULES,
    ignore=("",),
    only=("encoder.vision.norm.", "encoder.qformer.", "encoder.head.", "quantizer.", "decoder.", "recovery."),
)
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth"

register(
    "seed-2",
    SEED,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(8192,),
        downsample=(),
        channels=3,
        resolution=(224, 224),
        num_tokens=32,
        variable_size=False,
        code_license="Apache-2.0, in parts BSD-3-Clause",
        weights_license="Apache-2.0; of the image encoder not stated",
        paper="https://arxiv.org/abs/2310.01218",
        source="https://github.com/AILab-CVC/SEED",
    ),
    hub=(
        FileSource(
            "https://huggingface.co/AILab-CVC/seed-tokenizer-2/blob/main/seed_quantizer.pt",
            QUANTIZER,
            "seed_quantizer.pt",
            also=(FileSource(LAVIS, VISION, "eva_vit_g.pth"),),
        ),
        FileSource(keys=WHOLE),
    ),
    card="seed",
)
alias("seed", "seed-2")
