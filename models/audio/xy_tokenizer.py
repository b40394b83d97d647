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

from zoo.checkpoints import KeyMap, flag, pointwise_to_linear
from zoo.errors import InputError
from zoo.layers.vocos import ConvNeXtBlock, SpectrumHead, inverse_stft
from zoo.layers.whisper import HOP_LENGTH, SAMPLE_RATE, WINDOW_SECONDS, LogMel, Stem, Transformer, layer_rules
from zoo.modalities.resampling import resample
from zoo.quantizers import ProjectedResidualVQ
from zoo.registry import FileSource, HubSource, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.tracing import larger, smaller

BANDS = 80
POOLED = 4  # frames of the transformers, of 20 ms, that become one token
FRAMES = SAMPLE_RATE // HOP_LENGTH  # mel frames a second, also of the vocoder
DOWNSAMPLE = POOLED * 2 * HOP_LENGTH
WINDOW, STEP = WINDOW_SECONDS * SAMPLE_RATE, 20 * SAMPLE_RATE


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


class Decoder(nn.Module):
    """At most 30 seconds of latents `[B, 4 * width, tokens]` to `[B, 1, 8 * hop_length * tokens]`."""

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
        hop_length: int,
    ):
        super().__init__()
        self.hop_length = hop_length
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
        self.head = SpectrumHead(vocoder_dim, 4 * hop_length)

    def forward(self, latent: Tensor) -> Tensor:
        frames = 2 * POOLED * latent.shape[-1]
        x = self.project_out(self.adapter(self.project_in(latent.mT)))
        x = self.acoustic(self.upsample(x.mT).mT).mT
        x = F.gelu(self.deconv2(F.gelu(self.deconv1(x))))
        x = self.embed(x.narrow(2, 0, frames))
        x = self.blocks(self.norm(x.mT).mT)
        spectrum = self.head(self.final_norm(x.mT))
        audio = inverse_stft([(0, frames, spectrum)], frames, 4 * self.hop_length, self.hop_length)
        return audio[:, None].to(latent.dtype)


class XYTokenizer(Tokenizer):
    """Speech tokenizer with eight residual Euclidean codebooks.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, codebooks, tokens]`, `tokens = ceil(samples / 1280)`;
    latents `[B, 4 * width, tokens]`. `encode` and `decode` take `num_codebooks=`, the first few codebooks. The
    reference drops an unfinished last token; here it is kept, so that a clip is decoded in its length.

    The vocoder of MOSS-TTSD's tokenizer writes a higher sample rate, which is then the rate of all audio here: what is
    encoded is resampled to the 16 kHz that the encoders hear.

    Args:
        width, num_heads, hidden_dim: sizes of all transformers.
        num_layers: layers of both encoders and of the decoder. adapter_layers: layers of each of the three adapters.
        codebook_dim: length of a codebook row.
        vocoder_dim, vocoder_hidden_dim, vocoder_layers: sizes of Vocos's ConvNeXt blocks.
        revive_below: threshold of `VectorQuantizer`; it counts latents of a batch, so small batches need a small one.
    """

    cannot_stream = (
        "its encoders attend to windows of 30 seconds, so that a code depends on up to 30 seconds that follow. Shorter "
        "windows, encoded one by one, have other codes; what share of the codes was not measured, for want of the "
        "published weights"
    )
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
        rate = spec.sample_rate or SAMPLE_RATE
        if rate % FRAMES or spec.downsample != (rate // FRAMES * 2 * POOLED,):
            raise InputError(
                f"{spec.name} needs a sample rate of a multiple of {FRAMES} Hz and 12.5 tokens a second, got "
                f"{spec.sample_rate} Hz and downsample {spec.downsample}"
            )
        transformer = (width, num_heads, hidden_dim, num_layers, adapter_layers)
        self.encoder = Encoder(*transformer)
        self.quantizer = ProjectedResidualVQ(
            POOLED * width,
            codebook_dim,
            spec.codebook_sizes[0],
            spec.num_codebooks,
            weight_norm=True,
            update="ema",
            kmeans_init=True,
            revive_below=revive_below,
        )
        self.decoder = Decoder(*transformer, vocoder_dim, vocoder_hidden_dim, vocoder_layers, rate // FRAMES)

    def to_latent(self, signal: Tensor) -> Tensor:
        heard = resample(signal, self.spec.sample_rate or SAMPLE_RATE, SAMPLE_RATE)
        return windowed(self.encoder, heard, WINDOW, STEP, STEP // DOWNSAMPLE)

    def from_latent(self, latent: Tensor) -> Tensor:
        tokens = STEP // DOWNSAMPLE
        return windowed(self.decoder, latent, WINDOW // DOWNSAMPLE, tokens, tokens * self.spec.hop_length)


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


Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]


def projection_rules(published: str, ours: str) -> list[Rule]:
    """Rules for a weight-normalised convolution of one tap, which is a linear map here."""
    return [
        (f"{published}.bias", f"{ours}.bias"),
        (f"{published}.weight_g", f"{ours}.weight_g", pointwise_to_linear),
        (f"{published}.weight_v", f"{ours}.weight_v", pointwise_to_linear),
    ]


RULES: tuple[Rule, ...] = (
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
    *projection_rules("quantizer.input_proj", "quantizer.project_in"),
    ("quantizer.quantizers.{i}.codebook", "quantizer.residual.layers.{i}.codebook"),
    ("quantizer.quantizers.{i}.cluster_size", "quantizer.residual.layers.{i}.cluster_size"),
    ("quantizer.quantizers.{i}.embed_avg", "quantizer.residual.layers.{i}.codebook_sum"),
    ("quantizer.quantizers.{i}.inited", "quantizer.residual.layers.{i}.initialized", flag),
    *projection_rules("quantizer.output_proj", "quantizer.project_out"),
    ("post_rvq_adapter.proj.", "decoder.project_in."),
    *transformer_rules("post_rvq_adapter", "decoder.adapter"),
    ("post_rvq_adapter.out_proj.", "decoder.project_out."),
    ("upsample.up_conv.", "decoder.upsample."),
    *transformer_rules("acoustic_decoder", "decoder.acoustic"),
    ("acoustic_decoder.deconv1.", "decoder.deconv1."),
    ("acoustic_decoder.deconv2.", "decoder.deconv2."),
)


def vocoder_rules(published: str) -> list[Rule]:
    return [
        (f"{published}.backbone.embed.", "decoder.embed."),
        (f"{published}.backbone.norm.", "decoder.norm."),
        (f"{published}.backbone.convnext.{{i}}.dwconv.", "decoder.blocks.{i}.depthwise."),
        (f"{published}.backbone.convnext.{{i}}.norm.", "decoder.blocks.{i}.norm."),
        (f"{published}.backbone.convnext.{{i}}.pwconv1.", "decoder.blocks.{i}.expand."),
        (f"{published}.backbone.convnext.{{i}}.pwconv2.", "decoder.blocks.{i}.contract."),
        (f"{published}.backbone.convnext.{{i}}.gamma", "decoder.blocks.{i}.gamma"),
        (f"{published}.backbone.final_layer_norm.", "decoder.final_norm."),
        (f"{published}.head.out.", "decoder.head."),
    ]


# Tables and a window that are computed.
COMPUTED = (
    *(f"{part}_encoder.positional_embedding" for part in ("semantic", "acoustic")),
    *(f"{part}_adapter.positional_embedding" for part in ("semantic_encoder", "pre_rvq", "post_rvq")),
    "acoustic_decoder.positional_embedding",
)


def key_map(vocoder: str = "vocos", layout: tuple[str, ...] = ()) -> KeyMap:
    """Key map of a published file in which the vocoder has this name."""
    ignored = (*COMPUTED, f"{vocoder}.head.istft.window")
    return KeyMap(*RULES, *vocoder_rules(vocoder), layout=layout, ignore=ignored)


XY_TOKENIZER = register(
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
        HubSource("fdugyt/XY_Tokenizer", "xy_tokenizer.ckpt", keys=key_map(layout=("generator",))),
        FileSource(keys=key_map()),
    ),
    card="xy-tokenizer",
)
# Its file was not seen. The network is the same with another vocoder (OpenMOSS/MOSS-TTSD at b5fc87d), whose 24 kHz the
# authors state; hop and window are in the proportion that the configuration of their later one of 32 kHz has.
register(
    replace(
        XY_TOKENIZER,
        "xy-tokenizer-ttsd-v0",
        sample_rate=24000,
        downsample=(24000 // FRAMES * 2 * POOLED,),
        source="https://github.com/OpenMOSS/MOSS-TTSD",
        hub=(
            HubSource(
                "fnlp/XY_Tokenizer_TTSD_V0",
                "xy_tokenizer.ckpt",
                keys=key_map("enhanced_vocos", layout=("generator",)),
            ),
            FileSource(keys=key_map("enhanced_vocos")),
        ),
    )
)
