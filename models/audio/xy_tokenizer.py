"""XY-Tokenizer: speech at 16 kHz to eight residual codebooks at 12.5 frames a second, from two encoders, and back.

Paper: XY-Tokenizer: Mitigating the Semantic-Acoustic Conflict in Low-Bitrate Speech Codecs (arXiv 2506.23325).
Reference: gyt1145028706/XY-Tokenizer at 5df5609.
Two encoders of Whisper-small's shape hear the same log-mel spectrogram: one was trained to recognise speech, the other
to reconstruct it. Both are merged and quantized; a transformer decodes the codes to a spectrogram, and Vocos that to
audio. Attention spans 30 seconds: longer audio is encoded and decoded in windows of that length, every 20 seconds, of
which the first 20 are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.vocos import ConvNeXtBlock, SpectrumHead, inverse_stft
from zoo.layers.weight_norm import WeightNormConv1d
from zoo.layers.whisper import HOP_LENGTH, SAMPLE_RATE, WINDOW_SECONDS, LogMel, Stem, Transformer, layer_rules
from zoo.quantizers import QuantizerOutput, ResidualVQ, without_autocast
from zoo.quantizers.base import ResidualQuantizer
from zoo.registry import FileSource, HubSource, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.tracing import larger, smaller

BANDS = 80
POOLED = 4  # frames of the transformers, of 20 ms, that become one token
DOWNSAMPLE = POOLED * 2 * HOP_LENGTH
WINDOW, STEP = WINDOW_SECONDS * SAMPLE_RATE, 20 * SAMPLE_RATE
N_FFT = 4 * HOP_LENGTH  # of the vocoder


class Downsample(nn.Module):
    """Four frames to one of four times the width: `[B, frames, width]` to `[B, frames / 4, 4 * width]`."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Conv1d(width, POOLED * width, POOLED, POOLED, bias=False)
        self.up = nn.Conv1d(width, POOLED * width, POOLED, POOLED, bias=False)
        self.down = nn.Linear(POOLED * width, POOLED * width, bias=False)
        self.norm = nn.LayerNorm(POOLED * width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(F.silu(self.gate(x.mT).mT) * self.up(x.mT).mT)
        return self.norm(h + x.unflatten(1, (-1, POOLED)).flatten(2))


class Encoder(nn.Module):
    """At most 30 seconds `[B, 1, samples]` to `[B, 4 * width, ceil(samples / 1280)]`."""

    def __init__(self, width: int, num_heads: int, hidden_dim: int, num_layers: int, adapter_layers: int):
        super().__init__()
        self.log_mel = LogMel(BANDS)
        self.semantic_stem = Stem(BANDS, width)
        self.semantic = Transformer(width, num_heads, hidden_dim, num_layers)
        self.semantic_adapter = Transformer(width, num_heads, hidden_dim, adapter_layers)
        self.acoustic_stem = Stem(BANDS, width)
        self.acoustic = Transformer(width, num_heads, hidden_dim, num_layers)
        self.merge = nn.Linear(2 * width, width)
        self.adapter = Transformer(width, num_heads, hidden_dim, adapter_layers)
        self.downsample = Downsample(width)

    def forward(self, audio: Tensor) -> Tensor:
        samples = audio.shape[-1]
        mel_frames = (samples + HOP_LENGTH - 1) // HOP_LENGTH
        tokens = (samples + DOWNSAMPLE - 1) // DOWNSAMPLE
        # The reference pads to 30 seconds and masks what is after the end. Four more mel frames are all that the
        # frames before the end see of that padding; the others are left out instead of masked.
        padded = smaller((mel_frames + 4) * HOP_LENGTH, WINDOW)
        mel = self.log_mel(F.pad(audio[:, 0], (0, padded - samples))).to(audio.dtype)
        # As published, an unfinished frame at the end is not computed. The last token may consist of such frames alone.
        frames = larger(mel_frames // 2, 1)
        semantic = self.semantic_stem(mel).narrow(1, 0, frames)
        semantic = self.semantic_adapter(self.semantic(semantic))
        acoustic = self.acoustic(self.acoustic_stem(mel).narrow(1, 0, frames))
        x = self.adapter(self.merge(torch.cat([semantic, acoustic], dim=-1)))
        return self.downsample(F.pad(x, (0, 0, 0, POOLED * tokens - frames))).mT


class ProjectedRVQ(ResidualQuantizer):
    """Residual codebooks of fewer channels than the latent, between two weight-normalised projections.

    Args:
        dim: channels of the latent. codebook_dim: length of a codebook row.
        codebook_sizes: number of rows of each codebook.
        revive_below: threshold of `VectorQuantizer`.
    """

    def __init__(self, dim: int, codebook_dim: int, codebook_sizes: tuple[int, ...], revive_below: float):
        super().__init__(dim, codebook_sizes)
        self.project_in = WeightNormConv1d(dim, codebook_dim, 1)
        self.residual = ResidualVQ(
            codebook_dim,
            codebook_sizes,
            len(codebook_sizes),
            update="ema",
            kmeans_init=True,
            revive_below=revive_below,
        )
        self.project_out = WeightNormConv1d(codebook_dim, dim, 1)

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all)."""
        with without_autocast(z):
            return self.residual.encode(projected(self.project_in, self.check_latent(z)), num_codebooks)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., n]` of the first n codebooks to the projected sum of their rows, `[..., dim]`."""
        rows = self.residual.codes_to_latent(self.check_codes(codes))
        with without_autocast(rows):
            return projected(self.project_out, rows).to(rows.dtype)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        with without_autocast(z):
            quantized, codes, losses = self.residual(projected(self.project_in, self.check_latent(z)))
            return QuantizerOutput(projected(self.project_out, quantized).to(z.dtype), codes, losses)


def projected(projection: WeightNormConv1d, x: Tensor) -> Tensor:
    """Apply a convolution of one tap to the last axis, in float32."""
    return F.linear(x.float(), projection.weight[..., 0].float(), projection.bias.float())


class Decoder(nn.Module):
    """At most 30 seconds of latents `[B, 4 * width, tokens]` to `[B, 1, 1280 * tokens]`."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_dim: int,
        num_layers: int,
        adapter_layers: int,
        vocoder_dim: int,
        vocoder_hidden_dim: int,
        vocoder_layers: int,
    ):
        super().__init__()
        dim = POOLED * width
        self.project_in = nn.Linear(dim, width)
        self.adapter = Transformer(width, num_heads, hidden_dim, adapter_layers)
        self.project_out = nn.Linear(width, dim)
        self.upsample = nn.ConvTranspose1d(dim, width, POOLED, POOLED, bias=False)
        self.acoustic = Transformer(width, num_heads, hidden_dim, num_layers)
        self.deconv1 = nn.ConvTranspose1d(width, width, 3, stride=2)
        self.deconv2 = nn.ConvTranspose1d(width, BANDS, 3)
        self.embed = nn.Conv1d(BANDS, vocoder_dim, 7, padding=3)
        self.norm = nn.LayerNorm(vocoder_dim, eps=1e-6)
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(vocoder_dim, vocoder_hidden_dim, nn.LayerNorm(vocoder_dim, eps=1e-6), vocoder_layers)
                for _ in range(vocoder_layers)
            )
        )
        self.final_norm = nn.LayerNorm(vocoder_dim, eps=1e-6)
        self.head = SpectrumHead(vocoder_dim, N_FFT)

    def forward(self, latent: Tensor) -> Tensor:
        frames = 2 * POOLED * latent.shape[-1]
        x = self.project_out(self.adapter(self.project_in(latent.mT)))
        x = self.acoustic(self.upsample(x.mT).mT).mT
        x = F.gelu(self.deconv2(F.gelu(self.deconv1(x))))
        x = self.embed(x.narrow(2, 0, frames))
        x = self.blocks(self.norm(x.mT).mT)
        spectrum = self.head(self.final_norm(x.mT))
        return inverse_stft([(0, frames, spectrum)], frames, N_FFT, HOP_LENGTH)[:, None].to(latent.dtype)


class XYTokenizer(Tokenizer):
    """Speech tokenizer with eight residual Euclidean codebooks.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, codebooks, tokens]`, `tokens = ceil(samples / 1280)`;
    latents `[B, 4 * width, tokens]`. `encode` and `decode` take `num_codebooks=`, the first few codebooks. The
    reference drops an unfinished last token; here it is kept, so that a clip is decoded in its length.

    Args:
        width, num_heads, hidden_dim: sizes of all transformers.
        num_layers: layers of both encoders and of the decoder. adapter_layers: layers of each of the three adapters.
        codebook_dim: length of a codebook row.
        vocoder_dim, vocoder_hidden_dim, vocoder_layers: sizes of Vocos's ConvNeXt blocks.
        revive_below: threshold of `VectorQuantizer`; it counts latents of a batch, so small batches need a small one.
    """

    small: ClassVar = {
        "width": 16,
        "num_heads": 2,
        "hidden_dim": 32,
        "num_layers": 2,
        "adapter_layers": 1,
        "codebook_dim": 8,
        "vocoder_dim": 16,
        "vocoder_hidden_dim": 24,
        "vocoder_layers": 2,
    }

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        width: int = 768,
        num_heads: int = 12,
        hidden_dim: int = 3072,
        num_layers: int = 12,
        adapter_layers: int = 4,
        codebook_dim: int = 512,
        vocoder_dim: int = 512,
        vocoder_hidden_dim: int = 4096,
        vocoder_layers: int = 30,
        revive_below: float = 2.0,
    ):
        super().__init__(spec)
        transformer = (width, num_heads, hidden_dim, num_layers, adapter_layers)
        self.encoder = Encoder(*transformer)
        self.quantizer = ProjectedRVQ(POOLED * width, codebook_dim, spec.codebook_sizes, revive_below)
        self.decoder = Decoder(*transformer, vocoder_dim, vocoder_hidden_dim, vocoder_layers)

    def to_latent(self, signal: Tensor) -> Tensor:
        return windowed(self.encoder, signal, WINDOW, STEP, STEP // DOWNSAMPLE)

    def from_latent(self, latent: Tensor) -> Tensor:
        return windowed(self.decoder, latent, WINDOW // DOWNSAMPLE, STEP // DOWNSAMPLE, STEP)


def windowed(network: nn.Module, x: Tensor, window: int, step: int, kept: int) -> Tensor:
    """Run a network on windows of `x` that start `step` apart, and join the first `kept` steps of each result."""
    length = x.shape[-1]
    if torch.compiler.is_compiling():
        if length > step:
            raise InputError(f"a compiled or exported graph takes at most {step} steps, one window, got {length}")
        return network(x)
    parts = [network(x[..., start : start + window])[..., :kept] for start in range(0, length, step)]
    return torch.cat(parts, dim=-1)


def transformer_rules(published: str, ours: str) -> list[tuple[str, str]]:
    return [*layer_rules(f"{published}.layers", f"{ours}.layers"), (f"{published}.layer_norm.", f"{ours}.norm.")]


RULES: tuple[tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    *(
        (f"{branch}_encoder.{conv}.", f"encoder.{branch}_stem.{conv}.")
        for branch in ("semantic", "acoustic")
        for conv in ("conv1", "conv2")
    ),
    *transformer_rules("semantic_encoder", "encoder.semantic"),
    *transformer_rules("semantic_encoder_adapter", "encoder.semantic_adapter"),
    *transformer_rules("acoustic_encoder", "encoder.acoustic"),
    ("pre_rvq_adapter.proj.", "encoder.merge."),
    *transformer_rules("pre_rvq_adapter", "encoder.adapter"),
    ("downsample.gate_proj.", "encoder.downsample.gate."),
    ("downsample.up_proj.", "encoder.downsample.up."),
    ("downsample.down_proj.", "encoder.downsample.down."),
    ("downsample.layer_norm.", "encoder.downsample.norm."),
    ("quantizer.input_proj.", "quantizer.project_in."),
    ("quantizer.quantizers.{i}.codebook", "quantizer.residual.layers.{i}.codebook"),
    ("quantizer.quantizers.{i}.cluster_size", "quantizer.residual.layers.{i}.cluster_size"),
    ("quantizer.quantizers.{i}.embed_avg", "quantizer.residual.layers.{i}.codebook_sum"),
    ("quantizer.quantizers.{i}.inited", "quantizer.residual.layers.{i}.initialized", lambda inited: inited.reshape(())),
    ("quantizer.output_proj.", "quantizer.project_out."),
    ("post_rvq_adapter.proj.", "decoder.project_in."),
    *transformer_rules("post_rvq_adapter", "decoder.adapter"),
    ("post_rvq_adapter.out_proj.", "decoder.project_out."),
    ("upsample.up_conv.", "decoder.upsample."),
    *transformer_rules("acoustic_decoder", "decoder.acoustic"),
    ("acoustic_decoder.deconv1.", "decoder.deconv1."),
    ("acoustic_decoder.deconv2.", "decoder.deconv2."),
    ("vocos.backbone.embed.", "decoder.embed."),
    ("vocos.backbone.norm.", "decoder.norm."),
    ("vocos.backbone.convnext.{i}.dwconv.", "decoder.blocks.{i}.depthwise."),
    ("vocos.backbone.convnext.{i}.norm.", "decoder.blocks.{i}.norm."),
    ("vocos.backbone.convnext.{i}.pwconv1.", "decoder.blocks.{i}.expand."),
    ("vocos.backbone.convnext.{i}.pwconv2.", "decoder.blocks.{i}.contract."),
    ("vocos.backbone.convnext.{i}.gamma", "decoder.blocks.{i}.gamma"),
    ("vocos.backbone.final_layer_norm.", "decoder.final_norm."),
    ("vocos.head.out.", "decoder.head."),
)
# Tables and a window that are computed.
COMPUTED = (
    *(f"{part}_encoder.positional_embedding" for part in ("semantic", "acoustic")),
    *(f"{part}_adapter.positional_embedding" for part in ("semantic_encoder", "pre_rvq", "post_rvq")),
    "acoustic_decoder.positional_embedding",
    "vocos.head.istft.window",
)

register(
    "xy-tokenizer",
    XYTokenizer,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 8,
        residual=True,
        downsample=(DOWNSAMPLE,),
        channels=1,
        sample_rate=SAMPLE_RATE,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2506.23325",
        source="https://github.com/gyt1145028706/XY-Tokenizer",
    ),
    # The authors' loader takes a file with or without the weights of its training around the network's.
    hub=(
        HubSource(
            "fdugyt/XY_Tokenizer",
            "xy_tokenizer.ckpt",
            keys=KeyMap(*RULES, layout=("generator",), ignore=COMPUTED),
        ),
        FileSource(keys=KeyMap(*RULES, ignore=COMPUTED)),
    ),
    card="xy-tokenizer",
)
