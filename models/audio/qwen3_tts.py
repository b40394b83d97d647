"""Qwen3-TTS tokenizer: 24 kHz speech to 12.5 frames a second of 16 tokens and back, causal, so that it streams.

Technical report: arXiv 2601.15621. Reference: QwenLM/Qwen3-TTS at 022e286 (qwen-tts 0.1.1, transformers 4.57.3).
Encoder and quantizer are Mimi's with weights of their own. The decoder has its own copies of the codebooks, a
transformer at 12.5 Hz that sees 72 frames, ConvNeXt blocks up to 50 Hz, and DAC's convolutions with snake activations,
all causal. The authors decode at most 300 frames at once and start each such window anew, 25 frames early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, pointwise_to_linear
from zoo.errors import InputError
from zoo.layers.causal import CausalConv1d, CausalConvTranspose1d, Memory
from zoo.layers.causal_transformer import CausalTransformer
from zoo.layers.overlap import frames_of_chunk
from zoo.layers.snake import SnakeBeta
from zoo.models.audio.mimi import (
    Encoder,
    Rules,
    check_bounded,
    encode_in_parts,
    encoder_rules,
    in_parts,
    quantizer_rules,
    quotient,
    transformer_rules,
)
from zoo.quantizers import QuantizerOutput, SplitResidualVQ
from zoo.quantizers.base import ResidualQuantizer
from zoo.registry import HubSource, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class TwoSidedQuantizer(ResidualQuantizer):
    """Mimi's quantizer for encoding, and codebooks and output projections of the decoder's own.

    Losses: those of `SplitResidualVQ`; the decoder's codebooks learn from the reconstruction.
    """

    def __init__(self, dim: int, codebook_dim: int, codebook_size: int, num_quantizers: int, **options: Any):
        super().__init__(dim, (codebook_size,) * num_quantizers)
        self.encoding = SplitResidualVQ(dim, codebook_dim, codebook_size, num_quantizers, update="ema", **options)
        self.decoding = SplitResidualVQ(dim, codebook_dim, codebook_size, num_quantizers)
        for part in (self.decoding.first, self.decoding.rest):
            part.project_in.requires_grad_(False)  # stored in the published file, and never used

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all)."""
        return self.encoding.encode(z, num_codebooks)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., n]` of the first n codebooks to the decoder's latent, `[..., dim]`."""
        return self.decoding.codes_to_latent(codes)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        quantized, codes, losses = self.encoding(z)
        decoded = self.codes_to_latent(codes).to(z.dtype)
        # The encoder gets the gradient through its own projections.
        return QuantizerOutput(decoded + (quantized - quantized.detach()), codes, losses)


class GatedMLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class FrameTransformer(nn.Module):
    """A narrower transformer between projections: `[B, channels, frames]` to the same."""

    def __init__(self, channels: int, width: int, num_layers: int, num_heads: int, head_dim: int, window: int):
        super().__init__()
        self.project_in = nn.Linear(channels, width)
        self.transformer = CausalTransformer(
            width,
            num_layers,
            num_heads,
            head_dim,
            window,
            norm=lambda width: nn.RMSNorm(width, eps=1e-5),
            mlp=lambda width: GatedMLP(width, 2 * width),
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.project_out = nn.Linear(width, channels)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        return self.project_out(self.norm(self.transformer(self.project_in(x.mT), memory))).mT


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = CausalConv1d(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.contract = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        h = self.norm(self.depthwise(x, memory).mT)
        return x + (self.gamma * self.contract(F.gelu(self.expand(h)))).mT


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv1d(channels, channels, 7, dilation=dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv1d(channels, channels, 1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)  # twelve units add up

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        return x + self.conv2(self.act2(self.conv1(self.act1(x), memory)), memory)


class Upsample(nn.Module):
    """Snake, transposed convolution, residual units: `[B, channels_in, time]` to `[B, channels_out, time * stride]`."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.act = SnakeBeta(channels_in)
        self.conv = CausalConvTranspose1d(channels_in, channels_out, 2 * stride, stride)
        self.units = nn.ModuleList(ResidualUnit(channels_out, dilation) for dilation in (1, 3, 9))

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        x = self.conv(self.act(x), memory)
        for unit in self.units:
            x = unit(x, memory)
        return x


class Decoder(nn.Module):
    """Latent `[B, dim, frames]` to audio `[B, 1, frames * hop_length]` in [-1, 1]."""

    def __init__(
        self,
        dim: int,
        channels: int,
        transformer_width: int,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        window: int,
        width: int,
        strides: tuple[int, ...],
    ):
        super().__init__()
        self.before = CausalConv1d(dim, channels, 3)
        self.transformer = FrameTransformer(channels, transformer_width, num_layers, num_heads, head_dim, window)
        self.doublings = nn.ModuleList(CausalConvTranspose1d(channels, channels, 2, 2) for _ in range(2))
        self.blocks = nn.ModuleList(ConvNeXtBlock(channels) for _ in range(2))
        self.stem = CausalConv1d(channels, width, 7)
        self.upsamples = nn.ModuleList()
        for stride in strides:
            self.upsamples.append(Upsample(width, width // 2, stride))
            width //= 2
        self.act = SnakeBeta(width)
        self.head = CausalConv1d(width, 1, 7)

    def forward(self, latent: Tensor, memory: Memory | None = None) -> Tensor:
        x = self.transformer(self.before(latent, memory), memory)
        for double, block in zip(self.doublings, self.blocks, strict=True):
            x = block(double(x, memory), memory)
        x = self.stem(x, memory)
        for upsample in self.upsamples:
            x = upsample(x, memory)
        return self.head(self.act(x), memory).clamp(-1, 1)


class Qwen3TTSTokenizer(Tokenizer):
    """Causal speech tokenizer: Mimi's encoder and quantizer with another, larger decoder.

    Audio `[B, 1, samples]` of any length at 24 kHz; codes `[B, num_codebooks, frames]`,
    `frames = ceil(samples / hop_length)`.

    Options of `encode`: those of `Mimi`. By default the encoder's attention is not `windowed`: it sees the whole past,
    as in the version of transformers that the authors' package asks for. A stream has `windowed=True`, since its state
    would grow otherwise; codes of the first ten seconds are the same.

    Options of `decode`:
        chunk_seconds: length of the windows that are decoded one by one (the authors' 300 frames).
        context_seconds: length of what comes before a window that is decoded with it and cut off (their 25 frames).
            Signals longer than a window depend a little on both. `chunk_seconds=1e9` decodes everything as one.
        memory: state of a stream, which `stream` passes on.

    Args:
        strides: strides of the encoder's convolutions, first to last; two steps of theirs are a frame.
        width, dim, num_layers, num_heads, window, codebook_dim: as in `Mimi`.
        channels: channels of the decoder between its transformer and its convolutions.
        decoder_layers, decoder_heads, decoder_head_dim, decoder_window: the decoder's transformer, of width `dim`.
        decoder_width: channels of the first of the decoder's convolutions; each stage halves them.
        decoder_strides: strides of its stages, after two doublings of the frame rate.
    """

    encode_options = ("chunk_seconds", "windowed", "pad_waveform", "memory")
    decode_options = ("chunk_seconds", "context_seconds", "memory")
    cannot_stream = None
    stream_options: ClassVar = {"windowed": True}
    small: ClassVar = {
        "width": 4,
        "dim": 16,
        "num_layers": 2,
        "num_heads": 2,
        "window": 8,
        "codebook_dim": 8,
        "channels": 24,
        "decoder_layers": 2,
        "decoder_heads": 4,
        "decoder_head_dim": 8,
        "decoder_window": 4,
        "decoder_width": 32,
    }

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
        channels: int = 1024,
        decoder_layers: int = 8,
        decoder_heads: int = 16,
        decoder_head_dim: int = 64,
        decoder_window: int = 72,
        decoder_width: int = 1536,
        decoder_strides: tuple[int, ...] = (8, 5, 4, 3),
    ):
        super().__init__(spec)
        self.encoder = Encoder(strides, width, dim, num_layers, num_heads, window)
        self.quantizer = TwoSidedQuantizer(
            dim, codebook_dim, spec.codebook_sizes[0], spec.num_codebooks, kmeans_init=True, kmeans_iters=50
        )
        self.decoder = Decoder(
            dim,
            channels,
            dim,
            decoder_layers,
            decoder_heads,
            decoder_head_dim,
            decoder_window,
            decoder_width,
            decoder_strides,
        )

    def to_latent(
        self,
        signal: Tensor,
        chunk_seconds: float = 10.0,
        windowed: bool = False,
        pad_waveform: bool = False,
        memory: Memory | None = None,
    ) -> Tensor:
        return encode_in_parts(self, signal, chunk_seconds, windowed, pad_waveform, memory)

    def check_streams(self, options: Mapping[str, Any]) -> None:
        super().check_streams(options)
        check_bounded(self, options.get("windowed", False))

    def from_latent(
        self, latent: Tensor, chunk_seconds: float = 24.0, context_seconds: float = 2.0, memory: Memory | None = None
    ) -> Tensor:
        if torch.compiler.is_compiling():
            return self.decoder(latent)
        window, context = frames_of_chunk(self.spec, chunk_seconds), self._context(context_seconds)
        memory = {} if memory is None else memory
        done, before = memory.pop(self, (0, latent[..., :0]))  # frames of the window, and the last ones so far
        audio = []
        while latent.shape[-1]:
            if done == window:
                memory.clear()
                done = 0
                if context:
                    in_parts(self.decoder, before, PART, memory)
            part, latent = latent[..., : window - done], latent[..., window - done :]
            audio.append(in_parts(self.decoder, part, PART, memory))
            done += part.shape[-1]
            if context:
                before = torch.cat([before, part], dim=-1)[..., -context:].clone()
        memory[self] = done, before
        return torch.cat(audio, dim=-1)

    def _context(self, seconds: float) -> int:
        assert self.spec.frame_rate is not None, "audio has a sample rate"
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise InputError(f"expected context_seconds as a number of at least 0, got {seconds!r}")
        return int(seconds * self.spec.frame_rate)


PART = 25  # frames that the decoder computes at once, which bounds its memory


def frame_transformer_rules(published: str, ours: str) -> Rules:
    """Rules for the transformer between projections that the authors call `published`."""
    return [
        (f"{published}.input_proj.", f"{ours}.project_in."),
        (f"{published}.norm.", f"{ours}.norm."),
        (f"{published}.output_proj.", f"{ours}.project_out."),
        *transformer_rules(published, f"{ours}.transformer"),
        *(
            (f"{published}.layers.{{i}}.mlp.{part}_proj.", f"{ours}.transformer.layers.{{i}}.mlp.{part}.")
            for part in ("gate", "up", "down")
        ),
    ]


def upsample_rules(published: str, ours: str) -> Rules:
    """Rules for one stage of the decoder's convolutions."""
    rules = [(f"{published}.block.0.", f"{ours}.act."), (f"{published}.block.1.conv.", f"{ours}.conv.")]
    for unit in range(3):
        there, here = f"{published}.block.{unit + 2}", f"{ours}.units.{unit}"
        rules += [
            (f"{there}.conv1.conv.", f"{here}.conv1."),
            (f"{there}.conv2.conv.", f"{here}.conv2."),
            (f"{there}.", f"{here}."),
        ]
    return rules


CHECKPOINT = KeyMap(
    *encoder_rules("encoder.encoder.layers", "conv"),
    *transformer_rules("encoder.encoder_transformer", "encoder.transformer"),
    ("encoder.downsample.conv.", "encoder.last_downsample."),
    *quantizer_rules(
        "encoder.quantizer.semantic_residual_vector_quantizer",
        "quantizer.encoding.first",
        "layers.{i}.codebook",
        "embed_sum",
        "initialized",
    ),
    *quantizer_rules(
        "encoder.quantizer.acoustic_residual_vector_quantizer",
        "quantizer.encoding.rest",
        "layers.{i}.codebook",
        "embed_sum",
        "initialized",
    ),
    *(
        rule
        for part in ("first", "rest")
        for theirs, ours in [(f"decoder.quantizer.rvq_{part}", f"quantizer.decoding.{part}")]
        for rule in (
            (f"{theirs}.input_proj.weight", f"{ours}.project_in.weight", pointwise_to_linear),
            (f"{theirs}.output_proj.weight", f"{ours}.project_out.weight", pointwise_to_linear),
            (
                (
                    f"{theirs}.vq.layers.{{i}}._codebook.embedding_sum",
                    f"{theirs}.vq.layers.{{i}}._codebook.cluster_usage",
                ),
                f"{ours}.residual.layers.{{i}}.codebook",
                quotient,
            ),
        )
    ),
    ("decoder.pre_conv.conv.", "decoder.before."),
    *frame_transformer_rules("decoder.pre_transformer", "decoder.transformer"),
    ("decoder.upsample.{i}.0.conv.", "decoder.doublings.{i}."),
    ("decoder.upsample.{i}.1.dwconv.conv.", "decoder.blocks.{i}.depthwise."),
    ("decoder.upsample.{i}.1.pwconv1.", "decoder.blocks.{i}.expand."),
    ("decoder.upsample.{i}.1.pwconv2.", "decoder.blocks.{i}.contract."),
    ("decoder.upsample.{i}.1.", "decoder.blocks.{i}."),
    ("decoder.decoder.0.conv.", "decoder.stem."),
    *(
        rule
        for stage in range(4)
        for rule in upsample_rules(f"decoder.decoder.{stage + 1}", f"decoder.upsamples.{stage}")
    ),
    ("decoder.decoder.5.", "decoder.act."),
    ("decoder.decoder.6.conv.", "decoder.head."),
    # The encoder's file has 32 codebooks, of which the first 16 are used.
    ignore=tuple(f"encoder.quantizer.acoustic_residual_vector_quantizer.layers.{level}." for level in range(15, 31)),
)

# No commit is known, so the revision is the branch; the commit that was fetched is recorded with the converted weights.
register(
    "qwen3-tts-12hz",
    Qwen3TTSTokenizer,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="split-residual-vq",
        codebook_sizes=(2048,) * 16,
        residual=True,
        downsample=(1920,),
        channels=1,
        sample_rate=24000,
        causal=True,
        code_license="Apache-2.0",
        weights_license="Apache-2.0",
        paper="https://arxiv.org/abs/2601.15621",
        source="https://github.com/QwenLM/Qwen3-TTS",
    ),
    hub=HubSource("Qwen/Qwen3-TTS-Tokenizer-12Hz", "model.safetensors"),
    keys=CHECKPOINT,
    card="qwen3-tts",
    figures={"PESQ-WB": 3.21, "PESQ-NB": 3.68, "STOI": 0.96, "UTMOS": 4.16},
)
