"""BigCodec: speech at 16 kHz to one stream of 80 tokens a second and back, by a large network.

Paper: BigCodec: Pushing the Limits of Low-Bitrate Neural Speech Codec (arXiv 2409.05377).
Reference: Aria-K-Alethia/BigCodec at 09845ab.
Encoder and decoder are convolutions with snake activations between filters against aliasing, and an LSTM at frame
rate; latents are compared with the rows of the one codebook by their angle, in 8 dimensions. Convolutions look ahead,
so that the codes of a clip that is encoded in pieces differ at their ends.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.dac import DILATIONS, DecoderStage, EncoderStage
from zoo.layers.lstm import LSTM, remember
from zoo.layers.overlap import each_chunk, frames_of_chunk, joined
from zoo.layers.snake import AntiAliasedSnake
from zoo.layers.weight_norm import WeightNormConv1d
from zoo.quantizers import ProjectedVQ
from zoo.registry import HubSource, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

ACT = 5  # steps on either side that an activation sees
UNITS = sum(2 * ACT + 3 * dilation for dilation in DILATIONS)  # those of the three units of a block
EDGE = 3  # those of a convolution of 7
GAIN = 0.3  # of a residual unit at the start: fifteen in a row would enlarge the signal a hundredfold


class Encoder(nn.Module):
    """Whole frames of audio `[B, 1, samples]` to latents `[B, dim, frames]`, `chunk_frames` at a time."""

    def __init__(self, strides: tuple[int, ...], width: int, dim: int):
        super().__init__()
        self.strides = strides
        self.stem = WeightNormConv1d(1, width, 7, padding=3)
        blocks = []
        for stride in strides:
            blocks.append(EncoderStage(width, 2 * width, stride, AntiAliasedSnake, GAIN))
            width *= 2
        self.blocks = nn.Sequential(*blocks)
        self.lstm = LSTM(width, num_layers=2)
        self.act_out = AntiAliasedSnake(width)
        self.head = WeightNormConv1d(width, dim, 3, padding=1)

    @property
    def context(self) -> int:
        """Samples on either side that a frame's layers before the LSTM see, at most."""
        rate, samples = 1, EDGE
        for stride in self.strides:
            samples += rate * (UNITS + ACT + 1 + stride)
            rate *= stride
        return samples

    def forward(self, audio: Tensor, chunk_frames: int) -> Tensor:
        hop = math.prod(self.strides)
        halo, frames = math.ceil(self.context / hop), audio.shape[-1] // hop
        parts = each_chunk(lambda part: self.blocks(self.stem(part)), audio, frames, chunk_frames, halo, given=hop)
        x = remember(self.lstm, parts, frames, chunk_frames)
        return joined(each_chunk(lambda part: self.head(self.act_out(part)), x, frames, chunk_frames, ACT + 1), frames)


class Decoder(nn.Module):
    """Latents `[B, dim, frames]` to audio `[B, 1, samples]` in [-1, 1], `chunk_frames` at a time."""

    def __init__(self, strides: tuple[int, ...], width: int, dim: int):
        super().__init__()
        self.strides = strides
        width *= 2 ** len(strides)
        self.stem = WeightNormConv1d(dim, width, 7, padding=3)
        self.lstm = LSTM(width, num_layers=2)
        blocks = []
        for stride in strides:
            blocks.append(DecoderStage(width, width // 2, stride, AntiAliasedSnake, GAIN))
            width //= 2
        self.blocks = nn.Sequential(*blocks)
        self.act_out = AntiAliasedSnake(width)
        self.head = WeightNormConv1d(width, 1, 7, padding=3)

    @property
    def context(self) -> int:
        """Frames on either side that a sample's layers after the LSTM see, at most."""
        steps = EDGE + ACT
        for stride in reversed(self.strides):
            steps = math.ceil((steps + UNITS + 1) / stride) + 1 + ACT
        return steps

    def forward(self, latent: Tensor, chunk_frames: int) -> Tensor:
        hop, frames = math.prod(self.strides), latent.shape[-1]
        parts = each_chunk(self.stem, latent, frames, chunk_frames, EDGE)
        x = remember(self.lstm, parts, frames, chunk_frames)
        return joined(each_chunk(self.upsample, x, frames, chunk_frames, self.context, made=hop), frames * hop)

    def upsample(self, x: Tensor) -> Tensor:
        return self.head(self.act_out(self.blocks(x))).tanh()


class BigCodec(Tokenizer):
    """Speech tokenizer with one codebook of 8192 rows of 8 dimensions.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, 1, frames]`, `frames = samples // 200 + 1`: the authors
    fill the last frame with zeros, and add a frame of zeros where there is nothing to fill. Latents `[B, dim, frames]`.
    `encode` and `decode` take `chunk_seconds=`, how much is computed at once; the result does not depend on it.

    Args:
        strides: strides of the encoder's stages, first to last; the decoder's are the same backwards.
        width: channels of the encoder's first stage, which each stage doubles, and of the decoder's last.
        dim: channels of a latent. codebook_dim: length of a codebook row.
    """

    encode_options = ("chunk_seconds",)
    decode_options = ("chunk_seconds",)
    cannot_stream = (
        "its convolutions look 0.3 seconds ahead. chunk_seconds= bounds the memory for a signal that is there as a "
        "whole, and changes no code. Encoding windows one by one does, at their ends and where the LSTM starts anew; "
        "what share of the codes was not measured, for want of the published weights"
    )
    small: ClassVar = {"width": 2, "dim": 16}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        strides: tuple[int, ...] = (2, 2, 2, 5, 5),
        width: int = 48,
        dim: int = 1024,
        codebook_dim: int = 8,
    ):
        super().__init__(spec)
        self.encoder = Encoder(tuple(strides), width, dim)
        self.quantizer = ProjectedVQ(dim, spec.codebook_sizes[0], codebook_dim)
        self.decoder = Decoder(tuple(reversed(strides)), width, dim)

    def to_latent(self, signal: Tensor, chunk_seconds: float = 1.5) -> Tensor:
        return self.encoder(signal, frames_of_chunk(self.spec, chunk_seconds))

    def from_latent(self, latent: Tensor, chunk_seconds: float = 1.5) -> Tensor:
        return self.decoder(latent, frames_of_chunk(self.spec, chunk_seconds))

    def _pad(self, x: Tensor) -> Tensor:
        hop = self.spec.hop_length
        return F.pad(x, (0, hop - x.shape[-1] % hop))


def unit_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Rules for the units of a block, whose first one has the number 0."""
    return [
        (f"{published}.block.0.act.", f"{ours}.act1.act."),
        (f"{published}.block.1.", f"{ours}.conv1."),
        (f"{published}.block.2.act.", f"{ours}.act2.act."),
        (f"{published}.block.3.", f"{ours}.conv2."),
    ]


def encoder_rules() -> list[tuple[str, str]]:
    published = "CodecEnc.block"
    rules = [(f"{published}.0.", "encoder.stem.")]
    for stage in range(5):
        block, ours = f"{published}.{stage + 1}.block", f"encoder.blocks.{stage}"
        for unit in range(len(DILATIONS)):
            rules += unit_rules(f"{block}.{unit}", f"{ours}.units.{unit}")
        rules += [(f"{block}.3.act.", f"{ours}.act.act."), (f"{block}.4.", f"{ours}.conv.")]
    return [
        *rules,
        (f"{published}.6.lstm.", "encoder.lstm."),
        (f"{published}.7.act.", "encoder.act_out.act."),
        (f"{published}.8.", "encoder.head."),
    ]


def decoder_rules() -> list[tuple[str, str]]:
    published = "generator.model"
    rules = [(f"{published}.0.", "decoder.stem."), (f"{published}.1.lstm.", "decoder.lstm.")]
    for stage in range(5):
        block, ours = f"{published}.{stage + 2}.block", f"decoder.blocks.{stage}"
        rules += [(f"{block}.0.act.", f"{ours}.act.act."), (f"{block}.1.", f"{ours}.conv.")]
        for unit in range(len(DILATIONS)):
            rules += unit_rules(f"{block}.{unit + 2}", f"{ours}.units.{unit}")
    return [*rules, (f"{published}.7.act.", "decoder.act_out.act."), (f"{published}.8.", "decoder.head.")]


# The published file holds a state dict of the encoder and one of the decoder with the quantizer. Each activation in it
# has its two filters, which are the same everywhere.
CHECKPOINT = KeyMap(
    *encoder_rules(),
    *decoder_rules(),
    ("generator.quantizer.layers.0.in_proj.", "quantizer.project_in."),
    ("generator.quantizer.layers.0._codebook.weight", "quantizer.codebook"),
    ("generator.quantizer.layers.0.out_proj.", "quantizer.project_out."),
    ignore=("*.filter",),
)

register(
    "bigcodec",
    BigCodec,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="projected-vq",
        codebook_sizes=(8192,),
        downsample=(200,),
        channels=1,
        sample_rate=16000,
        extra_frame=True,
        code_license="MIT",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2409.05377",
        source="https://github.com/Aria-K-Alethia/BigCodec",
    ),
    hub=HubSource("Alethia/BigCodec", "bigcodec.pt"),
    keys=CHECKPOINT,
    card="bigcodec",
)
