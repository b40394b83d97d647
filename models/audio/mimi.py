"""Mimi: 24 kHz speech to 12.5 frames a second of up to 32 tokens and back, causal, so that it streams.

Paper: Moshi: a speech-text foundation model for real-time dialogue (arXiv 2410.00037). Reference: kyutai-labs/moshi
0.2.13, and its port in transformers 5.24.
A causal SEANet encoder (25 Hz), a causal transformer and a last strided convolution; the decoder mirrors them. One
codebook stands for what is said, beside residual ones over the same latent. A code depends on its frame and on earlier
ones alone, so audio is computed in parts that hand on what the next part needs: long clips in parts of
`chunk_seconds=`, a stream in parts as they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, flag, pointwise_to_linear
from zoo.errors import InputError
from zoo.layers.causal import CausalConv1d, CausalConvTranspose1d, Memory
from zoo.layers.causal_transformer import CausalTransformer
from zoo.layers.overlap import frames_of_chunk
from zoo.quantizers import SplitResidualVQ
from zoo.registry import HubSource, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class ResidualUnit(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = CausalConv1d(channels, channels // 2, 3)
        self.conv2 = CausalConv1d(channels // 2, channels, 1)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        return x + self.conv2(F.elu(self.conv1(F.elu(x), memory), inplace=True), memory)


def transformer(width: int, num_layers: int, num_heads: int, window: int) -> CausalTransformer:
    """Return Mimi's transformer: layer norms, and an MLP of four times the width with GELU."""

    def mlp(width: int) -> nn.Module:
        hidden = 4 * width
        return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False))

    return CausalTransformer(width, num_layers, num_heads, width // num_heads, window, nn.LayerNorm, mlp)


class Encoder(nn.Module):
    """Audio `[B, 1, samples]` to `[B, dim, frames]`, `frames = ceil(samples / hop_length)`."""

    def __init__(self, strides: tuple[int, ...], width: int, dim: int, num_layers: int, num_heads: int, window: int):
        super().__init__()
        self.stem = CausalConv1d(1, width, 7)
        self.units = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        for stride in strides:
            self.units.append(ResidualUnit(width))
            self.downsamples.append(CausalConv1d(width, 2 * width, 2 * stride, stride))
            width *= 2
        self.head = CausalConv1d(width, dim, 3)
        self.transformer = transformer(dim, num_layers, num_heads, window)
        self.last_downsample = CausalConv1d(dim, dim, 4, 2, bias=False, replicate=True)

    def forward(self, audio: Tensor, memory: Memory | None = None, *, windowed: bool = True) -> Tensor:
        x = self.stem(audio, memory)
        for unit, downsample in zip(self.units, self.downsamples, strict=True):
            x = downsample(F.elu(unit(x, memory), inplace=True), memory)
        x = self.head(F.elu(x, inplace=True), memory)
        return self.last_downsample(self.transformer(x.mT, memory, windowed=windowed).mT, memory)


class Decoder(nn.Module):
    """Latent `[B, dim, frames]` to audio `[B, 1, frames * hop_length]`."""

    def __init__(self, strides: tuple[int, ...], width: int, dim: int, num_layers: int, num_heads: int, window: int):
        super().__init__()
        # One kernel a channel, though the encoder's is a full one: the authors call it a bug that the weights rely on.
        self.first_upsample = CausalConvTranspose1d(dim, dim, 4, 2, depthwise=True, bias=False)
        self.transformer = transformer(dim, num_layers, num_heads, window)
        width *= 2 ** len(strides)
        self.stem = CausalConv1d(dim, width, 7)
        self.upsamples = nn.ModuleList()
        self.units = nn.ModuleList()
        for stride in reversed(strides):
            self.upsamples.append(CausalConvTranspose1d(width, width // 2, 2 * stride, stride))
            width //= 2
            self.units.append(ResidualUnit(width))
        self.head = CausalConv1d(width, 1, 3)

    def forward(self, latent: Tensor, memory: Memory | None = None) -> Tensor:
        x = self.transformer(self.first_upsample(latent, memory).mT, memory).mT
        x = self.stem(x, memory)
        for upsample, unit in zip(self.upsamples, self.units, strict=True):
            x = unit(upsample(F.elu(x, inplace=True), memory), memory)
        return self.head(F.elu(x, inplace=True), memory)


def in_parts(
    network: Callable[[Tensor, Memory | None], Tensor], x: Tensor, frames: int, memory: Memory | None, step: int = 1
) -> Tensor:
    """Return `network(x, memory)`, computed for at most so many frames at a time; in a traced graph at once.

    The parts are of about the same length: all weights are read for each, even for one of a single frame.

    Args:
        step: length of a frame in the last axis of `x`.
    """
    if torch.compiler.is_compiling() or x.shape[-1] <= frames * step:
        return network(x, memory)
    memory = {} if memory is None else memory
    whole = math.ceil(x.shape[-1] / step)
    length = math.ceil(whole / math.ceil(whole / frames)) * step
    return torch.cat([network(part, memory) for part in x.split(length, dim=-1)], dim=-1)


def encode_in_parts(
    tokenizer: Tokenizer,
    signal: Tensor,
    chunk_seconds: float,
    windowed: bool,
    pad_waveform: bool,
    memory: Memory | None,
) -> Tensor:
    """Return the latent of a tokenizer with Mimi's encoder; the arguments are options of `Mimi`."""
    if pad_waveform:
        signal = tokenizer.modality.pad(signal, tokenizer.spec)
    frames = frames_of_chunk(tokenizer.spec, chunk_seconds)
    return in_parts(partial(tokenizer.encoder, windowed=windowed), signal, frames, memory, tokenizer.spec.hop_length)


def check_bounded(tokenizer: Tokenizer, windowed: bool) -> None:
    """Raise InputError for a stream whose encoder sees all of the past."""
    if not windowed:
        raise InputError(
            f"{tokenizer.spec.name} cannot stream with windowed=False: each step would need all steps before it, and "
            "the state would grow without end"
        )


class Mimi(Tokenizer):
    """Causal speech tokenizer with one codebook of what is said beside residual ones of how it sounds.

    Audio `[B, 1, samples]` of any length at 24 kHz; codes `[B, num_codebooks, frames]`,
    `frames = ceil(samples / hop_length)`.

    Options of `encode`:
        chunk_seconds: length that is computed at once (at least one frame), also in `decode`; the result does not
            depend on it, apart from rounding.
        windowed: whether the encoder's attention is limited to `window` steps of the transformer (the default); if
            not, it sees the whole past, as in transformers before version 5: other codes after the first ten seconds.
        pad_waveform: whether a clip is padded with silence to whole frames, as the authors' code does; if not (the
            default), each convolution pads its own input, as transformers does. Only the codes of an incomplete last
            frame differ.
        memory: state of a stream, which `stream` passes on.

    Args:
        strides: strides of the encoder's convolutions, first to last; two steps of theirs are a frame.
        width: channels of the encoder's first stage; each stage doubles them.
        dim: channels of the latent and width of both transformers. num_layers, num_heads: their layers and heads.
        window: number of steps that a step of the transformers sees.
        codebook_dim: channels of a codebook row.
        quantizer_dropout, revive_below: as in `SplitResidualVQ` and `VectorQuantizer`, for training.
    """

    encode_options = ("chunk_seconds", "windowed", "pad_waveform", "memory")
    decode_options = ("chunk_seconds", "memory")
    cannot_stream = None
    small: ClassVar = {"width": 4, "dim": 16, "num_layers": 2, "num_heads": 2, "window": 8, "codebook_dim": 8}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        strides: tuple[int, ...] = (4, 5, 6, 8),
        width: int = 64,
        dim: int = 512,
        num_layers: int = 8,
        num_heads: int = 8,
        window: int = 250,
        codebook_dim: int = 256,
        quantizer_dropout: bool = False,
        revive_below: float = 1.0,
    ):
        super().__init__(spec)
        if 2 * math.prod(strides) != spec.hop_length:
            raise InputError(f"expected strides with a product of {spec.hop_length / 2:g}, got {strides}")
        self.encoder = Encoder(strides, width, dim, num_layers, num_heads, window)
        self.quantizer = SplitResidualVQ(
            dim,
            codebook_dim,
            spec.codebook_sizes[0],
            spec.num_codebooks,
            quantizer_dropout=quantizer_dropout,
            update="ema",
            kmeans_init=True,
            kmeans_iters=50,
            revive_below=revive_below,
        )
        self.decoder = Decoder(strides, width, dim, num_layers, num_heads, window)

    def to_latent(
        self,
        signal: Tensor,
        chunk_seconds: float = 10.0,
        windowed: bool = True,
        pad_waveform: bool = False,
        memory: Memory | None = None,
    ) -> Tensor:
        return encode_in_parts(self, signal, chunk_seconds, windowed, pad_waveform, memory)

    def check_streams(self, options: Mapping[str, Any]) -> None:
        super().check_streams(options)
        check_bounded(self, options.get("windowed", True))

    def from_latent(self, latent: Tensor, chunk_seconds: float = 10.0, memory: Memory | None = None) -> Tensor:
        return in_parts(self.decoder, latent, frames_of_chunk(self.spec, chunk_seconds), memory)


Rules = list[tuple[Any, ...]]  # of a key map


def quotient(total: Tensor, count: Tensor) -> Tensor:
    # The file holds the running sum and the running number of each row's vectors, and not the rows.
    return total / count.clamp(min=1e-5)[:, None]


def part_of_heads(part: int) -> Callable[[Tensor], Tensor]:
    """Return the function that takes queries (0), keys (1) or values (2) out of the authors' `[3 * width, width]`.

    The authors turn dimensions 2i and 2i + 1 of a head by the same angle, where ours are i and i + head_dim / 2.
    """

    def take(stacked: Tensor) -> Tensor:
        rows = stacked.chunk(3)[part]
        if part == 2:
            return rows
        heads = rows.unflatten(0, (-1, HEAD_DIM // 2, 2))
        return heads.transpose(1, 2).flatten(0, 2)

    return take


def encoder_rules(layers: str, conv: str) -> Rules:
    """Rules for the encoder's numbered layers; `conv` names a layer's convolution."""
    rules = [(f"{layers}.0.{conv}.", "encoder.stem."), (f"{layers}.14.{conv}.", "encoder.head.")]
    for stage in range(4):
        rules += [
            (f"{layers}.{3 * stage + 1}.block.1.{conv}.", f"encoder.units.{stage}.conv1."),
            (f"{layers}.{3 * stage + 1}.block.3.{conv}.", f"encoder.units.{stage}.conv2."),
            (f"{layers}.{3 * stage + 3}.{conv}.", f"encoder.downsamples.{stage}."),
        ]
    return rules


def decoder_rules(layers: str, conv: str, transposed: str) -> Rules:
    """Rules for the decoder's numbered layers; `conv` and `transposed` name a layer's convolution."""
    rules = [(f"{layers}.0.{conv}.", "decoder.stem."), (f"{layers}.14.{conv}.", "decoder.head.")]
    for stage in range(4):
        rules += [
            (f"{layers}.{3 * stage + 2}.{transposed}.", f"decoder.upsamples.{stage}."),
            (f"{layers}.{3 * stage + 3}.block.1.{conv}.", f"decoder.units.{stage}.conv1."),
            (f"{layers}.{3 * stage + 3}.block.3.{conv}.", f"decoder.units.{stage}.conv2."),
        ]
    return rules


def transformer_rules(published: str, ours: str) -> Rules:
    """Rules for the transformer that transformers' port calls `published`."""
    names = (
        ("self_attn.q_proj.", "attention.query."),
        ("self_attn.k_proj.", "attention.key."),
        ("self_attn.v_proj.", "attention.value."),
        ("self_attn.o_proj.", "attention.out."),
        ("self_attn_layer_scale.scale", "scale1"),
        ("mlp_layer_scale.scale", "scale2"),
        ("input_layernorm.", "norm1."),
        ("post_attention_layernorm.", "norm2."),
        ("mlp.fc1.", "mlp.0."),
        ("mlp.fc2.", "mlp.2."),
    )
    return [(f"{published}.layers.{{i}}.{theirs}", f"{ours}.layers.{{i}}.{our}") for theirs, our in names]


def authors_transformer_rules(published: str, ours: str) -> Rules:
    """Rules for the transformer that the authors' code calls `published`."""
    names: Rules = [
        ("self_attn.in_proj_weight", f"attention.{part}.weight", part_of_heads(number))
        for number, part in enumerate(("query", "key", "value"))
    ]
    names += [
        ("self_attn.out_proj.", "attention.out."),
        ("layer_scale_1.scale", "scale1"),
        ("layer_scale_2.scale", "scale2"),
        ("norm1.", "norm1."),
        ("norm2.", "norm2."),
        ("linear1.", "mlp.0."),
        ("linear2.", "mlp.2."),
    ]
    return [
        (f"{published}.transformer.layers.{{i}}.{theirs}", f"{ours}.layers.{{i}}.{our}", *transform)
        for theirs, our, *transform in names
    ]


def quantizer_rules(published: str, ours: str, codebook: str, total: str, initialized: str) -> Rules:
    """Rules for residual codebooks between projections; `codebook` is the tensors' place, `total` the running sum."""
    place, our = f"{published}.{codebook}", f"{ours}.residual.layers.{{i}}"
    return [
        (f"{published}.input_proj.weight", f"{ours}.project_in.weight", pointwise_to_linear),
        (f"{published}.output_proj.weight", f"{ours}.project_out.weight", pointwise_to_linear),
        ((f"{place}.{total}", f"{place}.cluster_usage"), f"{our}.codebook", quotient),
        (f"{place}.{total}", f"{our}.codebook_sum"),
        (f"{place}.cluster_usage", f"{our}.cluster_size"),
        (f"{place}.{initialized}", f"{our}.initialized", flag),
    ]


HEAD_DIM = 64

PARTS = (("semantic", "first"), ("acoustic", "rest"))  # of the quantizer, in transformers' port and here

TRANSFORMERS = KeyMap(
    *encoder_rules("encoder.layers", "conv"),
    *transformer_rules("encoder_transformer", "encoder.transformer"),
    ("downsample.conv.", "encoder.last_downsample."),
    *(
        rule
        for theirs, ours in PARTS
        for rule in quantizer_rules(
            f"quantizer.{theirs}_residual_vector_quantizer",
            f"quantizer.{ours}",
            "layers.{i}.codebook",
            "embed_sum",
            "initialized",
        )
    ),
    ("upsample.conv.", "decoder.first_upsample."),
    *transformer_rules("decoder_transformer", "decoder.transformer"),
    *decoder_rules("decoder.layers", "conv", "conv"),
)

AUTHORS = KeyMap(
    *encoder_rules("encoder.model", "conv.conv"),
    *authors_transformer_rules("encoder_transformer", "encoder.transformer"),
    ("downsample.conv.conv.conv.", "encoder.last_downsample."),
    *(
        rule
        for _, ours in PARTS
        for rule in quantizer_rules(
            f"quantizer.rvq_{ours}",
            f"quantizer.{ours}",
            "vq.layers.{i}._codebook",
            "embedding_sum",
            "_initialized",
        )
    ),
    ("upsample.convtr.convtr.convtr.", "decoder.first_upsample."),
    *authors_transformer_rules("decoder_transformer", "decoder.transformer"),
    *decoder_rules("decoder.model", "conv.conv", "convtr.convtr"),
)

# No commit is known, so the revision is the branch; the commit that was fetched is recorded with the converted weights.
# The figures are those that the authors of Qwen3-TTS measured with 16 codebooks.
MIMI = register(
    "mimi",
    Mimi,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="split-residual-vq",
        codebook_sizes=(2048,) * 32,
        residual=True,
        default_codebooks=8,
        downsample=(1920,),
        channels=1,
        sample_rate=24000,
        causal=True,
        code_license="MIT",
        weights_license="CC-BY-4.0",
        paper="https://arxiv.org/abs/2410.00037",
        source="https://github.com/kyutai-labs/moshi",
    ),
    hub=(
        HubSource("kyutai/mimi", "model.safetensors", keys=TRANSFORMERS),
        HubSource("kyutai/moshiko-pytorch-bf16", "tokenizer-e351c8d8-checkpoint125.safetensors", keys=AUTHORS),
    ),
    card="mimi",
    figures={
        "PESQ-WB, 16 codebooks": 2.88,
        "PESQ-NB, 16 codebooks": 3.42,
        "STOI, 16 codebooks": 0.94,
        "UTMOS, 16 codebooks": 3.87,
    },
)

# Trained here, by `trainers/recipes/mimi-nano.yaml`; ships with the package. The speech is CC BY 4.0, and so are the
# weights.
register(
    replace(
        MIMI,
        "mimi-nano",
        codebook_sizes=(1024,) * 8,
        default_codebooks=None,
        downsample=(240,),
        code_license="Apache-2.0",
        weights_license="CC BY 4.0",
        # Few stages with long strides, first to last: a small network spends less time at the full rate.
        config={
            "strides": (10, 6, 2),
            "width": 16,
            "dim": 96,
            "num_layers": 2,
            "num_heads": 4,
            "window": 100,
            "codebook_dim": 32,
            "revive_below": 0.03,
        },
        weights="weights/mimi-nano.safetensors",
        card="mimi-nano",
    )
)
