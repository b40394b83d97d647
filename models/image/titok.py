"""TiTok: an image of 256x256 to 32, 64 or 128 tokens that lie on no grid, and back.

Paper: An Image is Worth 32 Tokens for Reconstruction and Generation (NeurIPS 2024, arXiv 2406.07550).
Reference: bytedance/1d-tokenizer at 942a96fb ("legacy" there).
Learned latent tokens attend to the image's patches and are quantized; mask tokens attend to the quantized latents and
become logits over the codebook of another tokenizer, MaskGIT-VQGAN (arXiv 2202.04200), on a grid of 16x16 cells; that
tokenizer's decoder makes the pixels from the mean codebook entry of each cell. The variants here are those trained in
two stages, by the proxy codes of MaskGIT-VQGAN first, then by pixels with the encoder frozen.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.transformer import TransformerBlock
from zoo.layers.vqgan import Upsample, activated, group_norm
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

DIM = 12  # channels of a latent
PIXEL_CODES = 1024  # entries of MaskGIT-VQGAN's codebook

# Sizes of the transformer, the same in encoder and decoder.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 512, "num_layers": 8, "num_heads": 8},
    "base": {"width": 768, "num_layers": 12, "num_heads": 12},
    "large": {"width": 1024, "num_layers": 24, "num_heads": 16},
}


def learned_tokens(num_tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(num_tokens, width) * width**-0.5)


def coarse_to_fine(num_tokens: int, grid: int) -> Tensor:
    """Return `[num_tokens, grid * grid]`: a row of norm 1 for each token, with the cells that it covers at first.

    The first token covers all cells, the next four a quarter each, and so on to single cells, over and over; successive
    tokens are far from each other on the grid. The place of a token is the sum of its cells', weighted by its row.
    """
    cells = torch.arange(grid * grid)
    rows: list[Tensor] = []
    parts = 1
    while len(rows) < num_tokens:
        part = (cells // grid * parts // grid) * parts + cells % grid * parts // grid
        stride = int(0.618 * parts**2) | 1  # odd, and the number of parts a power of two: each comes once
        rows.extend(part == number * stride % parts**2 for number in range(parts**2))
        parts = min(2 * parts, 2 ** int(math.log2(grid)))
    return F.normalize(torch.stack(rows[:num_tokens]).float(), dim=1)


class Channels(NamedTuple):
    """What the channels of a token hold at first: places that are looked for, places that it looks for, and content."""

    place: slice
    target: slice
    content: slice


def channels_of(width: int, num_heads: int) -> Channels:
    places = min(width // num_heads, width // 4)
    return Channels(slice(0, places), slice(places, 2 * places), slice(2 * places, width))


def orthogonal(rows: int, columns: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(rows, columns))


def transformer(width: int, num_layers: int, num_heads: int) -> nn.Sequential:
    """Return blocks of which the first one, at first, copies the content of tokens to those that look for their place.

    All else adds nothing at first. With PyTorch's own initial values, the latents of all images are the same mean of
    patches, and training gets no further than the images' mean colours.
    """
    first, *others = blocks = [TransformerBlock(width, num_heads) for _ in range(num_layers)]
    place, target, content = channels_of(width, num_heads)
    with torch.no_grad():
        attention = first.attention
        attention.in_proj_weight.zero_()
        queries, keys, values = attention.in_proj_weight.chunk(3)
        for query, key in zip(queries.chunk(num_heads), keys.chunk(num_heads), strict=True):
            query[:, target] = key[:, place] = orthogonal(len(query), place.stop)
        values[:, content] = orthogonal(width, width - content.start)
        attention.out_proj.weight.zero_()
        attention.out_proj.weight[content] = values[:, content].T
        for layer in (*(block.attention.out_proj for block in others), *(block.mlp[2] for block in blocks)):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    return nn.Sequential(*blocks)


def patterns(patch: int) -> Tensor:
    """Return `[3 * patch * patch, 3, patch, patch]`: cosines of brightness and of two colours, low frequencies first.

    They are orthogonal; high frequencies, of which images have less, are larger.
    """
    steps = torch.arange(patch).float()
    waves = F.normalize(torch.cos(math.pi * (steps + 0.5) * steps[:, None] / patch), dim=1)
    colours = F.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]]), dim=1)
    frequency = 1 + steps[:, None] + steps + torch.tensor([0.0, 2.0, 2.0])[:, None, None]  # colour counts as finer
    all_of_them = torch.einsum("kc,ui,vj,kuv->kuvcij", colours, waves, waves, frequency.sqrt()).flatten(0, 2)
    return all_of_them[frequency.flatten().argsort(stable=True)]


def cells_of(resolution: int, patch: int) -> int:
    """Return the patches along a side of the image; InputError for sizes that the pixel decoder cannot make."""
    if patch not in (2, 4, 8, 16) or resolution % patch:
        raise InputError(f"expected a patch of 2, 4, 8 or 16 pixels that divides {resolution}, got {patch}")
    return resolution // patch


class Encoder(nn.Module):
    """Images `[B, 3, resolution, resolution]` to latents `[B, DIM, num_tokens]`, which have attended to all patches.

    Args:
        num_tokens: latents of an image. resolution: its height and width in pixels.
        width, num_layers, num_heads: channels, blocks and heads of the transformer.
        patch: side of a patch in pixels.
        legacy: whether the last array `[tokens, width]` is read as `[width, tokens]` without transposing, so that a
            latent mixes features of many tokens. The reference's first version does so, and its weights need it.
    """

    def __init__(
        self,
        num_tokens: int,
        resolution: int,
        width: int,
        num_layers: int,
        num_heads: int,
        *,
        patch: int = 16,
        legacy: bool = True,
    ):
        super().__init__()
        self.legacy = legacy
        grid = cells_of(resolution, patch)
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = learned_tokens(1, width)
        self.positions = learned_tokens(1 + grid**2, width)
        self.latent_tokens = learned_tokens(num_tokens, width)
        self.latent_positions = nn.Parameter(torch.empty(num_tokens, width))
        self.norm_in = nn.LayerNorm(width)
        self.blocks = transformer(width, num_layers, num_heads)
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Conv2d(width, DIM, 1)
        # At first, a latent looks for the cells that it covers. It holds their lowest frequencies and a constant,
        # because its length is not quantized.
        place, target, content = channels_of(width, num_heads)
        with torch.no_grad():
            waves = patterns(patch)[: width - content.start]
            shown = slice(content.start, content.start + len(waves))
            assert self.patch_embed.bias is not None and self.head.bias is not None
            self.patch_embed.weight.zero_()
            self.patch_embed.bias.zero_()
            self.patch_embed.weight[shown] = waves
            self.patch_embed.bias[shown] = -waves.sum(dim=(1, 2, 3)) / 2  # of a grey patch nothing is left
            self.positions.zero_()
            self.positions[:, place] = torch.randn(1 + grid**2, place.stop)
            self.latent_positions.zero_()
            self.latent_positions[:, target] = coarse_to_fine(num_tokens, grid) @ self.positions[1:, place]
            self.norm_in.weight.fill_(0.1)
            if not legacy:
                self.head.weight.zero_()
                self.head.weight[1:, content] = torch.eye(DIM - 1, width - content.start)[..., None, None]
                self.head.bias.zero_()
                self.head.bias[0] = 1

    def forward(self, image: Tensor) -> Tensor:
        batch, (num_tokens, width) = image.shape[0], self.latent_tokens.shape
        patches = rearrange(self.patch_embed(image), "b c h w -> b (h w) c")
        image_tokens = torch.cat([self.class_token.expand(batch, 1, width), patches], dim=1) + self.positions
        latents = (self.latent_tokens + self.latent_positions).expand(batch, num_tokens, width)
        x = self.blocks(self.norm_in(torch.cat([image_tokens, latents], dim=1)))
        x = self.norm_out(x[:, -num_tokens:])
        x = x.reshape(batch, width, num_tokens) if self.legacy else x.transpose(1, 2)
        return self.head(x[..., None])[..., 0]


class ResidualBlock(nn.Module):
    """Residual block of MaskGIT-VQGAN: no biases, and a peculiar shortcut where the number of channels changes."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_out, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h))
        # Where the number of channels changes, the JAX original adds the shortcut of the block's result, not of its
        # input, to the result. The weights were trained that way.
        return h + (x if self.shortcut is None else self.shortcut(h))


def residual_blocks(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(channels_in, channels_out), ResidualBlock(channels_out, channels_out))


class PixelDecoder(nn.Module):
    """Decoder of MaskGIT-VQGAN: `[B, 2 * width, h, w]` to `[B, 3, patch * h, patch * w]`; patch is 2, 4, 8 or 16."""

    def __init__(self, width: int, patch: int = 16):
        super().__init__()
        multipliers = (1, 1, 2, 2, 4)[-1 - int(math.log2(patch)) :]
        channels = [width * multiplier for multiplier in multipliers]  # finest level first
        inputs = [*channels[1:], channels[-1]]
        self.stem = nn.Conv2d(2 * width, channels[-1], 3, padding=1)
        self.mid = residual_blocks(channels[-1], channels[-1])
        levels = [residual_blocks(*ends) for ends in zip(inputs, channels, strict=True)]
        for level, c in zip(levels[1:], channels[1:], strict=True):
            level.append(Upsample(c))
        self.levels = nn.ModuleList(levels)
        self.norm = group_norm(channels[0])
        self.head = nn.Conv2d(channels[0], 3, 3, padding=1)
        # At first the output is grey, and convolutions keep the variance of their input and have no bias. With
        # PyTorch's own initial values, hardly any signal passes, since blocks that change the width have no shortcut.
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.mul_(math.sqrt(3))
                    if module.bias is not None:
                        module.bias.zero_()
            self.head.weight.mul_(0.05)
            assert self.head.bias is not None
            self.head.bias.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.stem(x))
        for level in reversed(self.levels):
            x = level(x)
        return self.head(activated(self.norm, x))


class Decoder(nn.Module):
    """Latents `[B, DIM, tokens]`, all or the first few of an image, to images `[B, 3, resolution, resolution]`.

    Args:
        num_tokens: latents of an image. resolution: its height and width in pixels.
        width, num_layers, num_heads: channels, blocks and heads of the transformer.
        pixel_width: channels of the pixel decoder at full resolution.
        patch: side of a patch in pixels.
    """

    def __init__(
        self,
        num_tokens: int,
        resolution: int,
        width: int,
        num_layers: int,
        num_heads: int,
        pixel_width: int,
        *,
        patch: int = 16,
    ):
        super().__init__()
        self.grid = cells_of(resolution, patch)
        self.embed = nn.Linear(DIM, width)
        self.latent_positions = nn.Parameter(torch.empty(num_tokens, width))
        self.mask_token = learned_tokens(1, width)
        self.class_token = learned_tokens(1, width)
        self.positions = learned_tokens(1 + self.grid**2, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = transformer(width, num_layers, num_heads)
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, PIXEL_CODES, 1))
        self.pixel_codebook = nn.Parameter(10 * torch.randn(PIXEL_CODES, 2 * pixel_width))
        self.pixel_decoder = PixelDecoder(pixel_width, patch)
        # At first, a cell looks for the latents that cover it, and gets what the encoder put into them. The factor of 6
        # makes some pixel codes likelier than others.
        place, target, content = channels_of(width, num_heads)
        with torch.no_grad():
            self.embed.weight.zero_()
            self.embed.bias.zero_()
            self.embed.weight[content, 1:] = 4 * torch.eye(width - content.start, DIM - 1)
            self.positions.zero_()
            self.positions[:, target] = torch.randn(1 + self.grid**2, place.stop)
            self.latent_positions.zero_()
            self.latent_positions[:, place] = coarse_to_fine(num_tokens, self.grid) @ self.positions[1:, target]
            self.norm_in.weight.fill_(0.1)
            last = self.head[2]
            assert isinstance(last, nn.Conv2d)
            last.weight.mul_(6)

    def forward(self, latent: Tensor) -> Tensor:
        latents = self.embed(rearrange(latent, "b c n -> b n c")) + self.latent_positions[: latent.shape[2]]
        image_tokens = torch.cat([self.class_token, self.mask_token.expand(self.grid**2, -1)]) + self.positions
        image_tokens = image_tokens.expand(latent.shape[0], -1, -1)
        x = self.blocks(self.norm_in(torch.cat([image_tokens, latents], dim=1)))
        x = self.norm_out(x[:, 1 : 1 + self.grid**2])
        logits = self.head(rearrange(x, "b (h w) c -> b c h w", h=self.grid))
        # The mean of the pixel codebook's rows, weighted by these probabilities: no code is chosen here.
        return self.pixel_decoder(torch.einsum("bkhw,kc->bchw", logits.softmax(dim=1), self.pixel_codebook))


class TiTok(Tokenizer):
    """Image tokenizer with a fixed number of tokens.

    Images `[B, 3, 256, 256]` in [0, 1]; codes `[B, 1, num_tokens]`; latents and unit codebook rows
    `[B, 12, num_tokens]`.

    Args:
        width, num_layers, num_heads: channels, blocks and heads of the transformers in encoder and decoder.
        pixel_width: channels of the pixel decoder at full resolution.
    """

    interpolation = "bicubic"
    small: ClassVar = {"width": 64, "num_layers": 1, "num_heads": 2, "pixel_width": 8}

    def __init__(self, spec: TokenizerSpec, *, width: int, num_layers: int, num_heads: int, pixel_width: int = 128):
        super().__init__(spec)
        assert spec.num_tokens is not None and spec.resolution is not None
        shape = (spec.num_tokens, spec.resolution[0], width, num_layers, num_heads)
        self.encoder = Encoder(*shape)
        self.quantizer = VectorQuantizer(DIM, *spec.codebook_sizes, distance="cosine")
        self.decoder = Decoder(*shape, pixel_width)


CHECKPOINT = KeyMap(
    ("latent_tokens", "encoder.latent_tokens"),
    *(
        (f"{side}.{published}", f"{side}.{ours}")
        for side in ("encoder", "decoder")
        for published, ours in (
            ("class_embedding", "class_token"),
            ("positional_embedding", "positions"),
            ("latent_token_positional_embedding", "latent_positions"),
            ("ln_pre.", "norm_in."),
            ("transformer.{i}.ln_1.", "blocks.{i}.norm1."),
            ("transformer.{i}.attn.", "blocks.{i}.attention."),
            ("transformer.{i}.ln_2.", "blocks.{i}.norm2."),
            ("transformer.{i}.mlp.c_fc.", "blocks.{i}.mlp.0."),
            ("transformer.{i}.mlp.c_proj.", "blocks.{i}.mlp.2."),
            ("ln_post.", "norm_out."),
        )
    ),
    ("encoder.conv_out.", "encoder.head."),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("decoder.decoder_embed.", "decoder.embed."),
    ("decoder.mask_token", "decoder.mask_token", lambda published: published[0]),
    ("decoder.ffn.", "decoder.head."),
    ("pixel_quantize.embedding.weight", "decoder.pixel_codebook"),
    ("pixel_decoder.conv_in.", "decoder.pixel_decoder.stem."),
    ("pixel_decoder.mid.", "decoder.pixel_decoder.mid."),
    ("pixel_decoder.up.{i}.upsample_conv.", "decoder.pixel_decoder.levels.{i}.2.conv."),
    ("pixel_decoder.up.{i}.block.{j}.nin_shortcut.", "decoder.pixel_decoder.levels.{i}.{j}.shortcut."),
    ("pixel_decoder.up.{i}.block.", "decoder.pixel_decoder.levels.{i}."),
    ("pixel_decoder.norm_out.", "decoder.pixel_decoder.norm."),
    ("pixel_decoder.conv_out.", "decoder.pixel_decoder.head."),
)


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
