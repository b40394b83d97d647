"""VQToken: a clip to a few clusters of its ViT features; the number of a feature's cluster is its code.

Paper: VQToken: Neural Discrete Token Representation Learning for Extreme Token Reduction in Video Large Language Models
(NeurIPS 2025, arXiv 2503.16980). Reference: Hai-chao-Zhang/VQToken at 019f89f.
SigLIP without its last layer and a projector see each frame alone. k-means groups the features of all frames; the means
of the clusters are the clip's own codebook, without which its codes say only which features are alike. One layer of
attention makes of both what a language model receives in place of the features. Nothing leads back to pixels.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.transformer import TransformerBlock, stacked
from zoo.models.video.vqtoken.k_means import KMeans, normalized
from zoo.parts import Part
from zoo.registry import HubSource, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

PATCH = 14


class Encoder(nn.Module):
    """SigLIP's transformer without its last layer and norm, and a projector.

    Images `[N, 3, height, width]` to features `[N, dim, rows, columns]`. Pixels after the last whole patch of 14 x 14
    are not seen.
    """

    def __init__(self, rows: int, columns: int, width: int, hidden_dim: int, num_layers: int, num_heads: int, dim: int):
        super().__init__()
        self.rows = rows
        self.patch_embed = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.randn(rows * columns, width) * width**-0.5)
        gelu = partial(nn.GELU, "tanh")
        blocks = [
            TransformerBlock(width, num_heads, hidden_dim, epsilon=1e-6, activation=gelu) for _ in range(num_layers)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.project = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, images: Tensor) -> Tensor:
        patches = rearrange(self.patch_embed(images), "n c h w -> n (h w) c")
        features = self.project(self.blocks(patches + self.positions))
        return rearrange(features, "n (h w) c -> n c h w", h=self.rows)


class Attention(nn.Module):
    """What a language model receives of a clip: frames' maps of codes, each a vector, which attend to the codebook.

    New ones have PyTorch's initial values. The authors draw the gains of the norms near 0, which lets little pass.
    """

    def __init__(self, positions: int, dim: int, num_heads: int, hidden_dim: int):
        super().__init__()
        self.query = nn.Linear(positions, dim)
        self.layer = nn.TransformerDecoderLayer(dim, num_heads, hidden_dim, batch_first=True)

    def forward(self, codes: Tensor, codebook: Tensor) -> Tensor:
        """Codes `[frames, positions]` and codebook `[K, dim]` to `[max(frames, K), dim]`; the shorter is repeated."""
        rows = max(len(codes), len(codebook))
        query = self.query(codes.to(codebook.dtype))  # the numbers of the clusters count as magnitudes
        return self.layer(repeated(query, rows)[None], repeated(codebook, rows)[None])[0]


def repeated(x: Tensor, rows: int) -> Tensor:
    """Return the rows of `x`, again from the first after the last, until there are `rows`."""
    return x[torch.arange(rows, device=x.device) % len(x)]


class CodesAndCodebooks(NamedTuple):
    """Codes of clips, int64 `[B, 1, T, rows, columns]`, and the codebook of each, float32 `[K, dim]`."""

    codes: Tensor
    codebooks: list[Tensor]


class VQToken(Tokenizer):
    """Video tokenizer whose codes are the clusters of the features of one clip.

    Video `[B, 3, T, 384, 384]` in [0, 1]; codes `[B, 1, T, 27, 27]`. Codebooks are a list with one float32 `[K, dim]`
    for each clip, since clips differ in K.

    Args:
        clusters: least and greatest number of clusters that are tried for a clip; two equal numbers fix it.
        max_iterations: iterations of k-means, at most.
        width, hidden_dim, num_layers, num_heads: sizes of SigLIP. dim: width of the features.
        attention_heads, attention_hidden: heads, and channels inside the MLP, of the attention to the codebook.
    """

    input_mean = 0.5
    input_std = 0.5
    encode_only = (
        "its codes are numbers of clusters of one clip's features, and no network makes pixels of features; "
        "encode_with_codebook(clip) returns codes and codebooks, and tokens(codes, codebooks) what a language model "
        "receives of them"
    )
    own_codebook = (
        "each clip has a codebook of its own, which encode_with_codebook(clip) returns with the codes, and which "
        "embed(codes, codebooks=...) and tokens(codes, codebooks) take with them"
    )
    cannot_stream = "a code is the number of a cluster among the features of the whole clip"
    encode_options = ("generator", "starts")
    interpolation = "bicubic"
    stretches = True
    small: ClassVar = {
        "max_iterations": 5,
        "width": 16,
        "hidden_dim": 24,
        "num_layers": 1,
        "num_heads": 2,
        "dim": 16,
        "attention_heads": 2,
        "attention_hidden": 24,
    }

    encoder: Encoder
    quantizer: KMeans

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        clusters: tuple[int, int],
        max_iterations: int,
        width: int = 1152,
        hidden_dim: int = 4304,
        num_layers: int = 26,
        num_heads: int = 16,
        dim: int = 896,
        attention_heads: int = 8,
        attention_hidden: int = 2048,
    ):
        super().__init__(spec)
        rows, columns = spec.fixed_grid
        self.encoder = Encoder(rows, columns, width, hidden_dim, num_layers, num_heads, dim)
        self.quantizer = KMeans(dim, clusters, max_iterations)
        self.attention = Attention(rows * columns, dim, attention_heads, attention_hidden)

    def to_latent(self, signal: Tensor) -> Tensor:
        # Frame by frame, so that neither memory nor rounding depends on how many frames and clips there are.
        frames = rearrange(signal, "b c t h w -> (b t) c h w").split(1)
        features = torch.cat([self.encoder(frame) for frame in frames])
        return rearrange(features, "(b t) c h w -> b c t h w", b=signal.shape[0])

    def encode(
        self, x: Tensor, lengths: Tensor | None = None, *, sample_rate: int | None = None, **options: Any
    ) -> Tensor:
        """Encode clips to codes alone, which say what is alike in a clip; `encode_with_codebook` has the codebooks too.

        Args:
            x, lengths: as there.
            sample_rate: None, since clips have none.
            options: `generator` and `starts`, as there. The same arguments give the same codes.

        Returns:
            int64 `[B, 1, T, 27, 27]`; positions after the valid frames of an item are 0.

        Raises:
            InputError: as there, or an unknown option.
        """
        self._check_names(options, self.encode_options, "encode")
        self._check_rate(sample_rate)
        return self.encode_with_codebook(x, lengths, **options).codes

    @torch.no_grad()
    def encode_with_codebook(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        starts: Sequence[Tensor] | Tensor | None = None,
    ) -> CodesAndCodebooks:
        """Encode clips to codes and to the codebooks that these are numbers of.

        k-means starts from features that are drawn at random. The draws are the same in every call unless a
        `generator` is given, and the same for all clips of a call, so that each has the codes that it has alone. Other
        draws give other codes, and codes of one call do not go with the codebook of another.

        Args:
            x: floating point `[B, 3, T, 384, 384]` in [0, 1].
            lengths: int `[B]`, valid frames of each item of a padded batch; None: all.
            generator: source of other draws; each call takes one number from it.
            starts: for each item int `[fits, clusters]`, the features (frame by frame, row by row) from which k-means
                starts, in place of draws; see `KMeans.cluster`.

        Raises:
            InputError: `x` and `lengths` as for `Tokenizer.encode`, or a `generator` or `starts` of another kind.
        """
        x = self._check_signal(x)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InputError(f"expected generator as a torch.Generator, got {reprlib.repr(generator)}")
        if starts is not None and (not isinstance(starts, Sequence | Tensor) or len(starts) != len(x)):
            raise InputError(f"expected starts of {len(x)} clips, got {reprlib.repr(starts)}")
        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        codes = torch.zeros(len(x), 1, *self.spec.grid(self.size_of(x)), dtype=torch.int64, device=x.device)
        codebooks = []
        for item, length in enumerate(self._frames(x, lengths)):
            latent = self.to_latent(self._normalize(x[item : item + 1, :, :length]))[0].movedim(0, -1)
            found = self.quantizer.cluster(latent, seed=seed, starts=None if starts is None else starts[item])
            codes[item, 0, :length] = found.labels.reshape(latent.shape[:-1])
            codebooks.append(found.codebook)
        return CodesAndCodebooks(codes, codebooks)

    def embed(
        self, codes: Tensor, size: int | tuple[int, ...] | None = None, *, codebooks: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return the quantized features, rows of the codebooks: `[B, dim, T, 27, 27]` in the model's data type.

        Args:
            codes: as `encode_with_codebook` returns them.
            size: not needed.
            codebooks: the codebook of each item, from the same call.

        Raises:
            InputError: codes, no codebooks, or some that are not of these codes.
        """
        codes, codebooks = self._check_pair(codes, codebooks)
        rows = [F.embedding(item, codebook) for item, codebook in zip(codes[:, 0], codebooks, strict=True)]
        return torch.stack(rows).movedim(-1, 1)

    def tokens(self, codes: Tensor, codebooks: Sequence[Tensor], lengths: Tensor | None = None) -> list[Tensor]:
        """Return what a language model receives of each clip: `[max(frames, K), dim]` in the model's data type.

        Gradients reach the attention and the codebooks.

        Args:
            codes, codebooks: as `encode_with_codebook` returns them.
            lengths: int `[B]`, as given there.

        Raises:
            InputError: codes, codebooks that are not of these codes, or lengths.
        """
        codes, codebooks = self._check_pair(codes, codebooks)
        frames = self._frames(codes, lengths)
        maps = [item[:length].flatten(1) for item, length in zip(codes[:, 0], frames, strict=True)]
        return [self.attention(item, codebook) for item, codebook in zip(maps, codebooks, strict=True)]

    def _frames(self, x: Tensor, lengths: Tensor | None) -> list[int]:
        """Return the valid frames of each item of a signal or of codes."""
        return [x.shape[2]] * len(x) if lengths is None else self.modality.check_lengths(lengths, x).tolist()

    def _check_pair(self, codes: Tensor, codebooks: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Return codes, and codebooks in the model's data type; InputError unless each item has its own."""
        codes, dim = self._check_codes(codes), self.quantizer.dim
        self.quantizer.check_codes(codes.movedim(1, -1))
        if codebooks is None:
            self.check_stands_alone()
        if not isinstance(codebooks, Sequence | Tensor) or len(codebooks) != len(codes):
            raise InputError(
                f"expected codebooks [clusters, {dim}] of {len(codes)} clips, got {reprlib.repr(codebooks)}"
            )
        for item, codebook in zip(codes, codebooks, strict=True):
            if not isinstance(codebook, Tensor) or not codebook.is_floating_point() or codebook.shape[1:] != (dim,):
                is_tensor = isinstance(codebook, Tensor)
                got = f"{codebook.dtype} {list(codebook.shape)}" if is_tensor else type(codebook).__name__
                raise InputError(f"expected a codebook as floating [clusters, {dim}], got {got}")
            if int(item.max()) >= len(codebook):
                raise InputError(f"expected codes of a codebook of {len(codebook)} rows, got a code {int(item.max())}")
        return codes, [codebook.to(self.device, self.dtype) for codebook in codebooks]


def run_quantizer(tokenizer: VQToken, golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the clusters of a clip's features, from given starts, and the tokens of given codes and codebook."""
    latent, codes, codebook = golden["input"][0].movedim(0, -1), golden["codes"], golden["codebook"][0].mT
    code_map, more_frames = codes[0, 0].flatten(1), golden["attention_codes_24"][0, 0].flatten(1)
    found = tokenizer.quantizer.cluster(latent, starts=golden["init_indices"][0, 0])
    return {
        "latent": normalized(latent.flatten(0, -2)[:8]).mT[None],
        "codes": found.labels.reshape(codes.shape),
        "centroids": found.centroids.mT[None],
        "codebook": found.codebook.mT[None],
        "distortions": found.distortions[None, None],
        "hash_query": tokenizer.attention.query(code_map.float()).mT[None],
        "reconstruction": tokenizer.attention(code_map, codebook).mT[None],
        "attention_output_24": tokenizer.attention(more_frames, codebook).mT[None],
    }


TAKEN = ("input", "codes", "codebook", "init_indices", "attention_codes_24")
VQToken.parts = {"quantizer": Part(run_quantizer, TAKEN, ("attention.",))}

SIGLIP = "model.vision_tower.vision_tower.vision_model."
PUBLISHED, OURS = f"{SIGLIP}encoder.layers.{{i}}.", "encoder.blocks.{i}."


def projections(kind: str) -> tuple[str, ...]:
    return tuple(f"{PUBLISHED}self_attn.{letter}_proj.{kind}" for letter in "qkv")


CHECKPOINT = KeyMap(
    (f"{SIGLIP}embeddings.patch_embedding.", "encoder.patch_embed."),
    (f"{SIGLIP}embeddings.position_embedding.weight", "encoder.positions"),
    (f"{PUBLISHED}layer_norm1.", f"{OURS}norm1."),
    (projections("weight"), f"{OURS}attention.in_proj_weight", stacked),
    (projections("bias"), f"{OURS}attention.in_proj_bias", stacked),
    (f"{PUBLISHED}self_attn.out_proj.", f"{OURS}attention.out_proj."),
    (f"{PUBLISHED}layer_norm2.", f"{OURS}norm2."),
    (f"{PUBLISHED}mlp.fc1.", f"{OURS}mlp.0."),
    (f"{PUBLISHED}mlp.fc2.", f"{OURS}mlp.2."),
    ("model.mm_projector.", "encoder.project."),
    ("model.cross_attention.to_q_proj.", "attention.query."),
    ("model.cross_attention.transformer_decoder.layers.0.", "attention.layer."),
    # The language model, and what SigLIP has after its features; its last layer, should the file have it.
    ignore=(
        "lm_head.",
        "model.embed_tokens.",
        "model.image_newline",
        "model.layers.",
        "model.norm.",
        "model.vision_resampler.",
        f"{SIGLIP}embeddings.position_ids",
        f"{SIGLIP}encoder.layers.26.",
        f"{SIGLIP}head.",
        f"{SIGLIP}post_layernorm.",
    ),
)
FILE = HubSource("haichaozhang/VQ-Token-llava-ov-0.5b", "model.safetensors")

ADAPTIVE = register(
    "vqtoken",
    VQToken,
    spec=TokenizerSpec(
        modality="video",
        quantizer="k-means",
        codebook_sizes=(22,),
        downsample=(1, PATCH, PATCH),
        channels=3,
        resolution=(384, 384),
        variable_size=False,
        code_license="BSD-3-Clause, in parts Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2503.16980",
        source="https://github.com/Hai-chao-Zhang/VQToken",
    ),
    config={"clusters": (12, 32), "max_iterations": 100},
    hub=FILE,
    keys=CHECKPOINT,
    card="vqtoken",
    figures={"accuracy in %, NextQA-MC, 32 frames": 57.72},
)
register(
    replace(
        ADAPTIVE,
        "vqtoken-fixed-32",
        codebook_sizes=(32,),
        config={"clusters": (32, 32), "max_iterations": 50},
        hub=FILE,
        figures={"accuracy in %, NextQA-MC, 32 frames": 57.46},
    )
)
