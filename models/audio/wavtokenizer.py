"""WavTokenizer: 24 kHz audio to one stream of 40 or 75 tokens a second and back.

Paper: WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling (ICLR 2025,
arXiv 2408.16532). Reference: jishengpeng/WavTokenizer at 5cf440d.
The encoder is EnCodec's (strided convolutions, an LSTM), the decoder is Vocos's (ConvNeXt at frame rate, inverse
STFT) after residual and attention blocks. Those blocks normalise and attend over the whole sequence, so
a clip decoded in parts is not the clip decoded at once; everything else sees a bounded neighbourhood, and long
audio runs through it in chunks whose overlap makes them exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, flag, pointwise_to_linear
from zoo.layers.overlap import frames_of_chunk, overlapping
from zoo.layers.seanet import Encoder, encoder_rules
from zoo.layers.vocos import ConvNeXtBlock, SpectrumHead, inverse_stft
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class ResidualBlock(nn.Module):
    def __init__(self, dim: int, groups: int, dropout: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, dim, eps=1e-6)
        self.conv1 = nn.Conv1d(dim, dim, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # All steps assign to one name, so that each intermediate result is freed by the next: long audio needs that.
        h = self.norm1(x)
        h = F.silu(h)
        h = self.conv1(h)
        h = self.norm2(h)
        h = F.silu(h)
        h = self.conv2(self.dropout(h))
        return x + h


class AttentionBlock(nn.Module):
    """Single-head attention over all frames, without positions."""

    def __init__(self, dim: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(*self.project(x))
        return x + self.out(attended[:, 0]).mT

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Contiguous, because PyTorch otherwise uses a kernel that stores the matrix of all frames by all frames.
        h = self.norm(x).mT.contiguous()[:, None]
        return self.query(h), self.key(h), self.value(h)


class AdaptiveLayerNorm(nn.Module):
    """Layer norm over channels (`[B, T, dim]`), scaled and shifted by a row of two tables."""

    def __init__(self, num_conditions: int, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_conditions, dim))
        self.shift = nn.Parameter(torch.zeros(num_conditions, dim))

    def forward(self, x: Tensor, condition: int) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.scale[condition], self.shift[condition], eps=1e-6)


class Decoder(nn.Module):
    """Residual and attention blocks, then Vocos: `[B, input_dim, frames]` to `[B, 1, frames * hop_length]`."""

    def __init__(
        self,
        input_dim: int,
        dim: int,
        hidden_dim: int,
        num_layers: int,
        num_conditions: int,
        norm_groups: int,
        n_fft: int,
        hop_length: int,
    ):
        super().__init__()
        self.num_conditions, self.n_fft, self.hop_length = num_conditions, n_fft, hop_length
        self.embed = nn.Conv1d(input_dim, dim, 7, padding=3)
        self.global_blocks = nn.Sequential(
            ResidualBlock(dim, norm_groups, dropout=0.1),
            ResidualBlock(dim, norm_groups, dropout=0.1),
            AttentionBlock(dim, norm_groups),
            ResidualBlock(dim, norm_groups, dropout=0.1),
            ResidualBlock(dim, norm_groups, dropout=0.1),
            nn.GroupNorm(norm_groups, dim, eps=1e-6),
        )
        self.norm = AdaptiveLayerNorm(num_conditions, dim)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, hidden_dim, AdaptiveLayerNorm(num_conditions, dim), num_layers)
            for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = SpectrumHead(dim, n_fft)
        for module in (self.embed, *self.blocks.modules()):
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, latent: Tensor, chunk_frames: int, window_frames: int | None = None) -> Tensor:
        # All conditions mean the same: training draws one at random, inference uses the first.
        condition = int(torch.randint(self.num_conditions, ())) if self.training else 0
        x = self.embed(latent)
        frames, halo = x.shape[-1], 3 * len(self.blocks)
        if window_frames is None:
            x = self.global_blocks(x)
        else:
            windows = overlapping(frames, window_frames, window_frames // 4)
            x = torch.cat([window.trim(self.global_blocks(window.of(x))) for window in windows], dim=-1)
        parts = (
            (chunk.start, chunk.stop, chunk.trim(self.spectrum(chunk.of(x), condition).mT).mT)
            for chunk in overlapping(frames, chunk_frames, halo)
        )
        return inverse_stft(parts, frames, self.n_fft, self.hop_length)[:, None].to(latent.dtype)

    def spectrum(self, x: Tensor, condition: int) -> Tensor:
        # [B, dim, T] to complex [B, T, n_fft / 2 + 1]
        x = self.norm(x.mT, condition).mT
        for block in self.blocks:
            x = block(x, condition)
        return self.head(self.final_norm(x.mT))


class WavTokenizer(Tokenizer):
    """Audio tokenizer with one Euclidean codebook.

    Audio `[B, 1, samples]` of any length at 24 kHz; codes `[B, 1, frames]`, `frames = ceil(samples / hop_length)`.
    `encode` and `decode` take `chunk_seconds=`, the length that is computed at once (at least one frame); the result
    does not depend on it. `decode` also takes `window_seconds=`: the blocks that otherwise normalise and attend over
    the whole clip then see so much of it and a quarter more on either side, so that the cost grows with the length and
    not with its square. That changes the signal of a longer clip, as the card says.

    Args:
        strides: strides of the encoder's stages, first to last; their product is the hop length.
        encoder_width: channels of the encoder's first stage; each stage doubles them.
        dim: channels of a codebook row.
        decoder_dim, hidden_dim: channels of the ConvNeXt decoder, and inside its blocks.
        num_layers: ConvNeXt blocks. num_conditions: rows of the adaptive norms.
        norm_groups: groups of the decoder's group norms.
        revive_below: threshold of `VectorQuantizer`; it counts latents of a batch, so small batches need a small one.
        input_std: typical deviation of the audio, by which the encoder's input is divided. The decoder's output is not
            multiplied by it: the head's magnitudes end at 100, which leaves room for loud audio in its own range only.
    """

    encode_options = ("chunk_seconds",)
    decode_options = ("chunk_seconds", "window_seconds")
    cannot_stream = (
        "a code also depends on what comes after it, and the decoder attends to the whole signal. chunk_seconds= "
        "bounds the memory for a signal that is there as a whole, and changes no code. Encoding windows one by one "
        "does: 5 % of the codes with windows of 5 seconds, 13 % with 2 and 24 % with 1 (wavtokenizer-nano on "
        "LibriSpeech)"
    )
    small: ClassVar = {
        "encoder_width": 4,
        "dim": 16,
        "decoder_dim": 32,
        "hidden_dim": 48,
        "num_layers": 2,
        "norm_groups": 8,
    }

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        strides: tuple[int, ...],
        encoder_width: int = 32,
        dim: int = 512,
        decoder_dim: int = 768,
        hidden_dim: int = 2304,
        num_layers: int = 12,
        num_conditions: int = 4,
        norm_groups: int = 32,
        revive_below: float = 2.0,
        input_std: float = 1.0,
    ):
        super().__init__(spec)
        self.encoder_std = input_std
        self.encoder = Encoder(tuple(strides), encoder_width, dim)
        self.quantizer = VectorQuantizer(
            dim,
            spec.codebook_sizes[0],
            update="ema",
            kmeans_init=True,
            kmeans_iters=200,
            revive_below=revive_below,
        )
        self.decoder = Decoder(
            dim,
            decoder_dim,
            hidden_dim,
            num_layers,
            num_conditions,
            norm_groups,
            n_fft=4 * spec.hop_length,
            hop_length=spec.hop_length,
        )

    def to_latent(self, signal: Tensor, chunk_seconds: float = 10.0) -> Tensor:
        if self.encoder_std != 1.0:
            signal = signal / self.encoder_std
        return self.encoder(signal, frames_of_chunk(self.spec, chunk_seconds))

    def from_latent(self, latent: Tensor, chunk_seconds: float = 10.0, window_seconds: float | None = None) -> Tensor:
        window = None if window_seconds is None else frames_of_chunk(self.spec, window_seconds, "window_seconds")
        return self.decoder(latent, frames_of_chunk(self.spec, chunk_seconds), window)


def quantizer_rules(codebook: str) -> list[tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]]:
    return [
        (f"{codebook}.embed", "quantizer.codebook"),
        (f"{codebook}.embed_avg", "quantizer.codebook_sum"),
        (f"{codebook}.cluster_size", "quantizer.cluster_size"),
        (f"{codebook}.inited", "quantizer.initialized", flag),
    ]


# Both published layouts use the same names for the decoder.
BACKBONE = (
    ("backbone.embed.", "decoder.embed."),
    ("backbone.pos_net.{i}.q.", "decoder.global_blocks.{i}.query.", pointwise_to_linear),
    ("backbone.pos_net.{i}.k.", "decoder.global_blocks.{i}.key.", pointwise_to_linear),
    ("backbone.pos_net.{i}.v.", "decoder.global_blocks.{i}.value.", pointwise_to_linear),
    ("backbone.pos_net.{i}.proj_out.", "decoder.global_blocks.{i}.out.", pointwise_to_linear),
    ("backbone.pos_net.", "decoder.global_blocks."),
    ("backbone.norm.scale.weight", "decoder.norm.scale"),
    ("backbone.norm.shift.weight", "decoder.norm.shift"),
    ("backbone.convnext.{i}.dwconv.", "decoder.blocks.{i}.depthwise."),
    ("backbone.convnext.{i}.norm.scale.weight", "decoder.blocks.{i}.norm.scale"),
    ("backbone.convnext.{i}.norm.shift.weight", "decoder.blocks.{i}.norm.shift"),
    ("backbone.convnext.{i}.pwconv1.", "decoder.blocks.{i}.expand."),
    ("backbone.convnext.{i}.pwconv2.", "decoder.blocks.{i}.contract."),
    ("backbone.convnext.{i}.gamma", "decoder.blocks.{i}.gamma"),
    ("backbone.final_layer_norm.", "decoder.final_norm."),
)

CHECKPOINT = KeyMap(
    *encoder_rules("feature_extractor.encodec.encoder.model", "conv."),
    *quantizer_rules("feature_extractor.encodec.quantizer.vq.layers.0._codebook"),
    *BACKBONE,
    ("head.out.", "decoder.head."),
    layout=("state_dict",),
    ignore=(
        "feature_extractor.encodec.decoder.",  # a whole EnCodec decoder, which is stored and never run
        "head.istft.window",
        "multiperioddisc.",
        "multiresddisc.",
        "dac.",
        "dacdiscriminator.",
        "melspec_loss.",
    ),
)

# What `WavTokenizerModel.save_pretrained` of transformers writes: the tensors that inference needs, and no others.
TRANSFORMERS = KeyMap(
    *encoder_rules("encoder_model.encoder.layers", ""),
    *quantizer_rules("encoder_model.quantizer.codebook"),
    *BACKBONE,
    ("head.linear.", "decoder.head."),
)


# As the license tag of the Hub repository says; the tags of the other repositories were not seen.
MIT, NOT_STATED = "MIT", "not stated"
HOP_600, HOP_320 = (4, 5, 5, 6), (2, 4, 5, 8)

# No commit is known, so the revision is the branch; the commit that was fetched is recorded with the converted weights.
# The UTMOS figures are read off a plot in the authors' README, where the ground truth is at about 4.06.
SMALL_320 = register(
    "wavtokenizer-small-320-24k-4096",
    WavTokenizer,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="vq",
        codebook_sizes=(4096,),
        downsample=(320,),
        channels=1,
        sample_rate=24000,
        code_license="MIT",
        weights_license=MIT,
        paper="https://arxiv.org/abs/2408.16532",
        source="https://github.com/jishengpeng/WavTokenizer",
    ),
    config={"strides": HOP_320},
    hub=HubSource("novateur/WavTokenizer", "WavTokenizer_small_320_24k_4096.ckpt"),
    keys=CHECKPOINT,
    card="wavtokenizer",
    figures={"UTMOS, LibriTTS": 4.05},
)
SMALL_600 = register(
    replace(
        SMALL_320,
        "wavtokenizer-small-600-24k-4096",
        downsample=(600,),
        config={"strides": HOP_600},
        hub=HubSource("novateur/WavTokenizer", "WavTokenizer_small_600_24k_4096.ckpt"),
        figures={"UTMOS, LibriTTS": 3.60},
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-medium-speech-320-24k-v2",
        hub=HubSource(
            "novateur/WavTokenizer-medium-speech-75token",
            "wavtokenizer_medium_speech_320_24k_v2.ckpt",
            "8858552e69270816d6aeb37bfcf3b770769d4899",
        ),
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-medium-speech-320-24k",
        hub=HubSource("novateur/WavTokenizer-medium-speech-75token", "wavtokenizer_medium_speech_320_24k.ckpt"),
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-medium-music-audio-320-24k-v2",
        weights_license=NOT_STATED,
        hub=HubSource(
            "novateur/WavTokenizer-medium-music-audio-75token",
            "wavtokenizer_medium_music_audio_320_24k_v2.ckpt",
            "1bcbe86db88fc1f1f86c7ea192e791b3ede17da2",
        ),
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-medium-music-audio-320-24k",
        weights_license=NOT_STATED,
        hub=HubSource(
            "novateur/WavTokenizer-medium-music-audio-75token", "wavtokenizer_medium_music_audio_320_24k.ckpt"
        ),
    )
)
register(
    replace(
        SMALL_600,
        "wavtokenizer-large-unify-600-24k",
        weights_license=NOT_STATED,
        hub=(
            HubSource(
                "novateur/WavTokenizer-large-unify-40token",
                "wavtokenizer_large_unify_600_24k.ckpt",
                "7dc47a9450ce71cab736434b7645604013ca028b",
            ),
            HubSource("swiss-ai/wavtokenizer-large-unify-40token", "model.safetensors", keys=TRANSFORMERS),
        ),
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-large-speech-320-v2",
        weights_license=NOT_STATED,
        hub=HubSource("novateur/WavTokenizer-large-speech-75token", "wavtokenizer_large_speech_320_v2.ckpt"),
    )
)
register(
    replace(
        SMALL_320,
        "wavtokenizer-large-speech-320-24k",
        weights_license=NOT_STATED,
        hub=HubSource("novateur/WavTokenizer-large-speech-75token", "wavtokenizer_large_speech_320_24k.ckpt"),
    )
)
alias("wavtokenizer", "wavtokenizer-large-speech-320-v2")

# Trained here, by `trainers/recipes/wavtokenizer-nano.yaml`; ships with the package. The speech is CC BY 4.0, and so
# are the weights.
register(
    replace(
        SMALL_320,
        "wavtokenizer-nano",
        code_license="Apache-2.0",
        weights_license="CC BY 4.0",
        config={
            # The published order reversed: with a long first stride, a small network spends less time at the full rate.
            "strides": (8, 5, 4, 2),
            "encoder_width": 8,
            "dim": 32,
            "decoder_dim": 128,
            "hidden_dim": 384,
            "num_layers": 4,
            "num_conditions": 1,
            "norm_groups": 8,
            "revive_below": 0.03,
            "input_std": 0.05,
        },
        weights="weights/wavtokenizer-nano.safetensors",
        card="wavtokenizer-nano",
    )
)
