"""RobusTok and XQ-GAN's plain VQ: an image of 256x256 to one code for each of 16x16 positions, and back.

Papers: Robust Latent Matters (arXiv 2503.08354), Image Tokenizer Needs Post-Training (arXiv 2509.12474), XQ-GAN (arXiv
2412.01762). Reference: lxa9867/ImageFolder at 76ddfb9a.
Two vision transformers of DINOv2's kind. Each adds learned tokens to those that it is given, on the same grid and with
the same positions: latents to the patches, mask tokens to the code vectors. RobusTok differs from the plain VQ only in
its training: some codes are replaced by nearby ones (`perturbation` in recipes), so that the decoder tolerates a
generator's mistakes. The product and multi-scale quantizers of XQ-GAN (ImageFolder) are left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, State
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

DROP_PATH = 0.1  # probability in the last block in training; it rises evenly from 0 in the first


def learned_tokens(num_tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(1, num_tokens, width) * width**-0.5)


class Branch(nn.Module):
    """Residual branch: adds to its input `layer` of the input's norm, times a learned gain per channel (LayerScale).

    In training, nothing is added to an item with the probability `drop_path`.
    """

    def __init__(self, width: int, layer: nn.Module, drop_path: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.layer = layer
        # CaiT's initial value for a dozen blocks. The authors' 1e-5 has no effect: they start from DINOv2's weights.
        self.gain = nn.Parameter(torch.full((width,), 0.1))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        h = self.gain * self.layer(self.norm(x))
        if self.training and self.drop_path:
            h = h * h.new_empty(h.shape[0], 1, 1).bernoulli_(1 - self.drop_path) / (1 - self.drop_path)
        return x + h


class Attention(nn.Module):
    """Multi-head attention of every token to every token."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (part head c) -> part b head n c", part=3, head=self.num_heads)
        return self.project(rearrange(F.scaled_dot_product_attention(q, k, v), "b head n c -> b n (head c)"))


def block(width: int, num_heads: int, drop_path: float) -> nn.Sequential:
    mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    attention = Attention(width, num_heads)
    return nn.Sequential(OrderedDict(attention=Branch(width, attention, drop_path), mlp=Branch(width, mlp, drop_path)))


class VisionTransformer(nn.Module):
    """DINOv2's transformer, without patches, for two groups of tokens on one grid of `positions`.

    The groups are distinguished by a learned level. `forward(first, second)` takes `[B, 1 + positions, width]`, as
    `place` returns it, and `[B, n, width]`; it returns `[B, 1 + positions + n, width]`.
    """

    def __init__(self, positions: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.class_token = learned_tokens(1, width)
        self.positions = learned_tokens(1 + positions, width)
        self.levels = nn.Parameter(torch.randn(2, width) * width**-0.5)
        self.blocks = nn.Sequential(
            *(block(width, num_heads, DROP_PATH * i / max(1, num_layers - 1)) for i in range(num_layers))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def place(self, tokens: Tensor) -> Tensor:
        """Return tokens `[B, positions, width]` after the class token, all with their positions added."""
        return torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.positions

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = torch.cat([first + self.levels[0], second + self.levels[1]], dim=1)
        return self.norm(self.blocks(x))


class Encoder(nn.Module):
    """`[B, 3, patch * h, patch * w]` to latent tokens `[B, dim, h, w]`, which have attended to all patches."""

    def __init__(self, grid: tuple[int, int], patch: int, dim: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.grid, positions = grid, grid[0] * grid[1]
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.latent_tokens = learned_tokens(positions, width)
        self.transformer = VisionTransformer(positions, width, num_layers, num_heads)
        self.head = nn.Conv2d(width, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        patches = rearrange(self.patch_embed(image), "b c h w -> b (h w) c")
        latents = self.latent_tokens.expand(image.shape[0], -1, -1)
        x = self.transformer(self.transformer.place(patches), self.transformer.place(latents)[:, 1:])
        return self.head(rearrange(x[:, -latents.shape[1] :], "b (h w) c -> b c h w", h=self.grid[0]))


class Decoder(nn.Module):
    """`[B, dim, h, w]` to `[B, 3, patch * h, patch * w]`, through mask tokens that attend to all code vectors."""

    def __init__(self, grid: tuple[int, int], patch: int, dim: int, width: int, num_layers: int, num_heads: int):
        super().__init__()
        self.grid, self.patch, self.positions = grid, patch, grid[0] * grid[1]
        self.embed = nn.Conv2d(dim, width, 1)
        self.mask_token = learned_tokens(1, width)
        self.transformer = VisionTransformer(self.positions, width, num_layers, num_heads)
        self.head = nn.Linear(width, 3 * patch**2)

    def forward(self, latent: Tensor) -> Tensor:
        vectors = rearrange(self.embed(latent), "b c h w -> b (h w) c")
        masks = self.mask_token.expand_as(vectors)
        # The class token comes twice: before the mask tokens and before the code vectors.
        x = self.transformer(self.transformer.place(masks), self.transformer.place(vectors))
        pixels = self.head(x[:, 1 : 1 + self.positions])
        return rearrange(pixels, "b (h w) (r s c) -> b c (h r) (w s)", h=self.grid[0], r=self.patch, s=self.patch)


class RobusTok(Tokenizer):
    """Image tokenizer with one l2-normalised codebook between two vision transformers.

    Images `[B, 3, 256, 256]` in [0, 1]; codes `[B, 1, 16, 16]`; latents and unit codebook rows `[B, dim, 16, 16]`.

    Args:
        dim: latent channels.
        width, num_layers, num_heads: channels, blocks and heads of the transformers in encoder and decoder.
    """

    input_mean = 0.5
    input_std = 0.5
    interpolation = "halved-bicubic"
    small: ClassVar = {"width": 64, "num_layers": 1, "num_heads": 2}

    def __init__(
        self, spec: TokenizerSpec, *, dim: int = 64, width: int = 768, num_layers: int = 12, num_heads: int = 12
    ):
        super().__init__(spec)
        assert spec.resolution is not None
        rows, columns = spec.grid(spec.resolution)
        shape = ((rows, columns), spec.downsample[0], dim, width, num_layers, num_heads)
        self.encoder = Encoder(*shape)
        self.quantizer = VectorQuantizer(dim, *spec.codebook_sizes, distance="cosine")
        self.decoder = Decoder(*shape)


class TrainingKeyMap(KeyMap):
    """Key map of the authors' training checkpoints: averaged weights if the file has them, else those of `layout`."""

    def found(self, checkpoint: Mapping[str, Any], expected: Iterable[str]) -> int:
        return super().found(averaged(checkpoint), expected)

    def convert(self, checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor], source: str) -> State:
        return super().convert(averaged(checkpoint), expected, source)


def averaged(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"model": checkpoint["ema"]} if "ema" in checkpoint else checkpoint


def transformer_keys(side: str) -> tuple[tuple[str, str], ...]:
    """Return the rules for the transformer of the encoder or the decoder."""
    published, ours = f"{side}.model.", f"{side}.transformer."
    theirs, branches = f"{published}blocks.{{i}}.", f"{ours}blocks.{{i}}."
    return (
        (f"{published}cls_token", f"{ours}class_token"),
        (f"{published}pos_embed", f"{ours}positions"),
        (f"{side}.lvl_embed.weight", f"{ours}levels"),
        (f"{theirs}norm1.", f"{branches}attention.norm."),
        (f"{theirs}attn.qkv.", f"{branches}attention.layer.qkv."),
        (f"{theirs}attn.proj.", f"{branches}attention.layer.project."),
        (f"{theirs}ls1.gamma", f"{branches}attention.gain"),
        (f"{theirs}norm2.", f"{branches}mlp.norm."),
        (f"{theirs}mlp.fc1.", f"{branches}mlp.layer.0."),
        (f"{theirs}mlp.fc2.", f"{branches}mlp.layer.2."),
        (f"{theirs}ls2.gamma", f"{branches}mlp.gain"),
        (f"{published}norm.", f"{ours}norm."),
    )


CHECKPOINT = TrainingKeyMap(
    *transformer_keys("encoder"),
    *transformer_keys("decoder"),
    ("encoder.model.patch_embed.proj.", "encoder.patch_embed."),
    ("quant_conv.", "encoder.head."),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("post_quant_conv.", "decoder.embed."),
    ("decoder.to_pixel.model.", "decoder.head."),
    layout=("model",),
    ignore=("semantic_model.", "encoder.lvl1LC", "decoder.lvl1LC", "quantize.ema_vocab_hit_SV"),
)


ROBUSTOK = register(
    "robustok",
    RobusTok,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(4096,),
        downsample=(16, 16),
        channels=3,
        resolution=(256, 256),
        variable_size=False,
        code_license="Adobe Research License, noncommercial",
        weights_license="no stated license, taken as noncommercial",
        paper="https://arxiv.org/abs/2503.08354",
        source="https://github.com/lxa9867/ImageFolder",
    ),
    config={"dim": 64},
    hub=HubSource("qiuk6/RobustTok", "main-train.pt"),
    keys=CHECKPOINT,
    card="robustok",
    figures={
        "rFID, ImageNet 256x256": 1.02,
        "pFID, ImageNet 256x256": 2.28,
        "gFID with RAR-B, ImageNet 256x256": 1.83,
        "gFID with RAR-L, ImageNet 256x256": 1.60,
    },
)
register(
    replace(
        ROBUSTOK,
        "robustok-post-trained",
        paper="https://arxiv.org/abs/2509.12474",
        hub=HubSource("qiuk6/RobustTok", "post-train.pt"),
        figures={"gFID with RAR-B, ImageNet 256x256": 1.60, "gFID with RAR-L, ImageNet 256x256": 1.36},
    )
)
XQGAN = register(
    replace(
        ROBUSTOK,
        "xqgan-vq-4096",
        paper="https://arxiv.org/abs/2412.01762",
        hub=HubSource("qiuk6/RobustTok", "XQGAN-4096.pt"),
        figures={"rFID, ImageNet 256x256": 0.91, "pFID, ImageNet 256x256": 6.98},
    )
)
register(
    replace(
        XQGAN,
        "xqgan-vq-8192",
        codebook_sizes=(8192,),
        config={"dim": 32},
        hub=HubSource("qiuk6/RobustTok", "XQGAN-8192.pt"),
        figures={"rFID, ImageNet 256x256": 0.81, "pFID, ImageNet 256x256": 7.91},
    )
)
alias("robusttok", "robustok")  # as the Hub's repository spells it
alias("xqgan-vq", "xqgan-vq-8192")
