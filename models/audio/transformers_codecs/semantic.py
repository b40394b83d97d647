"""X-Codec, Higgs Audio v2, XCodec2 and NeuCodec: convolutions beside a speech model that sees the whole clip.

Papers: Codec Does Matter (arXiv 2408.17175), Llasa (arXiv 2502.04128), Finite Scalar Quantization Enables Redundant and
Transmission-Robust Neural Audio Compression (arXiv 2509.09550). Reference: transformers 5.24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.modalities.resampling import resample
from zoo.models.audio.transformers_codecs.base import TransformersCodec, folded, published, settings_of, speech_model
from zoo.models.audio.transformers_codecs.quantizers import NearestCodebooks, ScalarLevels
from zoo.registry import alias, register, replace
from zoo.spec import TokenizerSpec

HIGGS_ACOUSTIC = {"downsampling_ratios": (8, 5, 4, 2, 3), "upsampling_ratios": (8, 5, 4, 2, 3)}
WINDOW, STEP, TRANSFORM, BANDS = 400, 160, 512, 80  # of the spectrogram that the speech model takes at 16 kHz


class JoinedEncoder(nn.Module):
    """X-Codec's encoder: convolutions over the audio, and a speech model whose weights training leaves alone."""

    def __init__(self, network: Any, margin: int, step: int):
        super().__init__()
        self.acoustic, self.teacher = network.acoustic_encoder, network.semantic_model
        self.semantic, self.join = network.encoder_semantic, network.fc
        self.margin, self.step = margin, step

    def train(self, mode: bool = True) -> JoinedEncoder:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, audio: Tensor, speech: Tensor) -> Tensor:
        """audio: `[B, 1, samples]`, whole frames. speech: the same at the rate of the speech model."""
        with torch.no_grad():
            layers = hidden_states(self.teacher, F.pad(speech[:, 0], (self.margin, self.margin)))
        features = torch.stack(layers, dim=1).mean(dim=1)[:, :: self.step]
        x = torch.cat([self.acoustic(audio), self.semantic(features.mT)], dim=1)
        return self.join(x.mT).mT


def hidden_states(teacher: Any, speech: Tensor) -> list[Tensor]:
    """Return the input of the first layer of a HuBERT or WavLM, and the output of each, `[B, frames, width]`.

    Asked for them, `transformers` would leave hooks in the model that cannot be pickled.
    """
    x = teacher.feature_projection(teacher.feature_extractor(speech).mT)
    x = x[0] if isinstance(x, tuple) else x
    states = [teacher.encoder.layer_norm(x + teacher.encoder.pos_conv_embed(x))]
    bias: dict[str, Any] = {"position_bias": None} if teacher.config.model_type == "wavlm" else {}
    for index, layer in enumerate(teacher.encoder.layers):
        if bias:  # the first layer computes the one that all of them add
            x, bias["position_bias"] = layer(states[-1], index=index, **bias)
        else:
            x = layer(states[-1])
        states.append(x)
    return states


class ProjectedDecoder(nn.Module):
    """X-Codec's decoder: the acoustic part of the latent, and convolutions."""

    def __init__(self, network: Any):
        super().__init__()
        self.project, self.network = network.fc2, network.acoustic_decoder

    def forward(self, latent: Tensor) -> Tensor:
        return self.network(self.project(latent.mT).mT)


class XCodec(TransformersCodec):
    """Audio tokenizer with residual codebooks of DAC's convolutions and a speech model's features, joined.

    Audio `[B, 1, samples]` at 16 kHz, padded with silence to whole frames; codes `[B, num_codebooks, frames]`. The
    speech model sees the whole clip.
    """

    model_type = "xcodec"
    small: ClassVar = {
        "sizes": {
            "acoustic_model_config": {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "hidden_size": 8},
            "semantic_model_config": {
                "model_type": "hubert",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "conv_dim": (8,) * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        }
    }

    @classmethod
    def checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        acoustic = {"model_type": "dac", **(settings.get("acoustic_model_config") or {})}
        if acoustic["model_type"] != "dac":
            raise InputError(f"expected an acoustic model of type dac, got {acoustic['model_type']!r}")
        known = settings_of("dac") | {"model_type", "hidden_size", "upsampling_ratios"}
        acoustic = {key: value for key, value in acoustic.items() if key in known}
        semantic = speech_model(settings.get("semantic_model_config") or {"model_type": "hubert"})
        return {**settings, "acoustic_model_config": acoustic, "semantic_model_config": semantic}

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        return {
            "quantizer": "residual-vq",
            "residual": True,
            "codebook_sizes": (config.codebook_size,) * config.num_quantizers,
            "downsample": (config.hop_length,),
            "channels": 1,
            "sample_rate": config.sample_rate,
        }

    def assemble(self, network: Any) -> None:
        config = network.config
        self.encoder = JoinedEncoder(network, *self.features_of(config))
        self.decoder = ProjectedDecoder(network)
        self.quantizer = NearestCodebooks(config.hidden_size, config.codebook_size, network.quantizer.quantizers)

    def features_of(self, config: Any) -> tuple[int, int]:
        """Return the samples of silence on both sides of what the speech model hears, and the step of its features."""
        return config.hop_length // 2, 1

    def to_latent(self, signal: Tensor) -> Tensor:
        padded = self.modality.pad(signal, self.spec)
        return self.encoder(padded, padded)

    @classmethod
    def keys_of(cls, settings: Mapping[str, Any]) -> KeyMap:
        place = "encoder.pos_conv_embed.conv"
        return KeyMap(
            folded(f"semantic_model.{place}", f"encoder.teacher.{place}", dim=2),
            ("semantic_model.", "encoder.teacher."),
            ("acoustic_encoder.", "encoder.acoustic."),
            ("encoder_semantic.", "encoder.semantic."),
            ("fc.", "encoder.join."),
            ("quantizer.quantizers.{i}.", "quantizer.layers.{i}."),
            ("fc2.", "decoder.project."),
            ("acoustic_decoder.", "decoder.network."),
            ignore=("decoder_semantic.", "fc1.", "semantic_model.masked_spec_embed"),
        )


class HiggsAudioV2(XCodec):
    """X-Codec at 24 kHz with 25 frames a second, whose speech model hears the audio at its own rate."""

    teacher_rate: int

    model_type = "higgs_audio_v2_tokenizer"
    small: ClassVar = {
        "sizes": {
            "acoustic_model_config": {**XCodec.small["sizes"]["acoustic_model_config"], **HIGGS_ACOUSTIC},
            "semantic_model_config": XCodec.small["sizes"]["semantic_model_config"],
            "codebook_dim": 8,
        }
    }

    def assemble(self, network: Any) -> None:
        super().assemble(network)
        self.teacher_rate = network.config.semantic_sample_rate

    def features_of(self, config: Any) -> tuple[int, int]:
        return 160, max(config.semantic_downsample_factor, 1)

    def to_latent(self, signal: Tensor) -> Tensor:
        padded = self.modality.pad(signal, self.spec)
        return self.encoder(padded, resample(padded, self.spec.sample_rate or 0, self.teacher_rate))


class SpectrogramEncoder(nn.Module):
    """XCodec2's encoder: convolutions over the audio, and a speech model that takes a spectrogram.

    margin: samples of silence on both sides of what the spectrogram is made of.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, network: Any, sample_rate: int, margin: int):
        super().__init__()
        self.acoustic, self.teacher = network.acoustic_encoder, network.semantic_encoder
        self.adapter, self.join = network.semantic_adapter, network.fc_encoder
        self.sample_rate, self.margin = sample_rate, margin
        from torchaudio.compliance.kaldi import get_mel_banks

        bands = get_mel_banks(BANDS, TRANSFORM, sample_rate, 20.0, sample_rate / 2, 100.0, -500.0, 1.0)[0]
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False).pow(0.85), persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    def train(self, mode: bool = True) -> SpectrogramEncoder:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, audio: Tensor) -> Tensor:
        """Audio `[B, 1, samples]` of whole frames to `[B, dim, frames]`, of which the shorter branch has the number."""
        with torch.no_grad():
            features = self.adapter(last_hidden_state(self.teacher, self.spectrogram(audio)).mT)
        acoustic = self.acoustic(audio)
        frames = min(features.shape[-1], acoustic.shape[-1])
        x = torch.cat([features[..., :frames], acoustic[..., :frames]], dim=1)
        return self.join(x.mT).mT

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Return `[B, frames, 2 * BANDS]`: two spectra a frame, each band over the clip with mean 0 and deviation 1."""
        scaled = F.pad(audio[:, 0].float(), (self.margin, self.margin)) * 2**15
        parts = scaled.unfold(-1, WINDOW, STEP)
        parts = parts - parts.mean(-1, keepdim=True)
        parts = parts - 0.97 * torch.cat([parts[..., :1], parts[..., :-1]], dim=-1)
        parts = F.pad(parts * self.window.float(), (0, TRANSFORM - WINDOW))
        power = torch.fft.rfft(parts).abs().square()
        bands = (power[..., :-1] @ self.bands.float().T).clamp(min=torch.finfo(torch.float32).eps).log()
        bands = (bands - bands.mean(1, keepdim=True)) / (bands.var(1, keepdim=True) + 1e-7).sqrt()
        return bands[:, : bands.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2).to(audio.dtype)


def last_hidden_state(teacher: Any, spectrogram: Tensor) -> Tensor:
    """Return what a speech model makes of a spectrogram, `[B, frames, width]`.

    While a graph is exported, attention is computed by single operators: PyTorch's, with a bias, lays its result out in
    one way when it is traced, in another when it is turned to ONNX, and the view that follows then fails.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_dynamo_compiling():
        return teacher(spectrogram).last_hidden_state
    usual = teacher.config._attn_implementation
    teacher.set_attn_implementation("eager")
    try:
        return teacher(spectrogram).last_hidden_state
    finally:
        teacher.set_attn_implementation(usual)


class XCodec2(TransformersCodec):
    """Speech tokenizer with one code a frame, of 65,536: convolutions and a speech model, a transformer as decoder.

    Audio `[B, 1, samples]` at 16 kHz; codes `[B, 1, frames]`, `frames = samples // hop_length + 1`. The speech model
    sees the whole clip, and so does the decoder.
    """

    encoder: SpectrogramEncoder

    model_type = "xcodec2"
    small: ClassVar = {
        "sizes": {
            "encoder_hidden_size": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "quantization_dim": 64,
            "initializer_range": 0.1,
            "semantic_model_config": {
                "model_type": "wav2vec2-bert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "output_hidden_size": 32,
                "initializer_range": 0.1,
            },
        }
    }

    @classmethod
    def checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        default = {"model_type": "wav2vec2-bert", "num_hidden_layers": 16}
        return {**settings, "semantic_model_config": speech_model(settings.get("semantic_model_config") or default)}

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        return {
            "quantizer": "fsq",
            "codebook_sizes": (math.prod(config.quantization_levels),),
            "downsample": (config.hop_length,),
            "extra_frame": True,
            "channels": 1,
            "sample_rate": config.sampling_rate,
        }

    def assemble(self, network: Any) -> None:
        config = network.config
        self.encoder = SpectrogramEncoder(network, *self.heard(config))
        self.quantizer = ScalarLevels(config.quantization_dim, config.quantization_levels, network.quantizer)
        self.decoder = network.acoustic_decoder

    def heard(self, config: Any) -> tuple[int, int]:
        """Return the sample rate of the encoder, and the silence on both sides of what its spectrogram is made of."""
        return config.sampling_rate, config.hop_length // 2

    def to_latent(self, signal: Tensor) -> Tensor:
        return self.encoder(self.modality.pad(F.pad(signal, (0, 1)), self.spec))

    def from_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(latent.mT).to(latent.dtype)

    @classmethod
    def keys_of(cls, settings: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            ("semantic_encoder.", "encoder.teacher."),
            ("acoustic_encoder.", "encoder.acoustic."),
            ("semantic_adapter.", "encoder.adapter."),
            ("fc_encoder.", "encoder.join."),
            ("quantizer.", "quantizer.layer."),
            ("acoustic_decoder.", "decoder."),
            ignore=("semantic_encoder.masked_spec_embed",),
        )


class NeuCodec(XCodec2):
    """XCodec2 that hears 16 kHz and decodes to 24 kHz.

    Audio `[B, 1, samples]` at 24 kHz, padded with silence to whole frames, which the encoder resamples; codes
    `[B, 1, frames]`, `frames = ceil(samples / hop_length)`.
    """

    model_type = "neucodec"

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        return {
            "quantizer": "fsq",
            "codebook_sizes": (math.prod(config.quantization_levels),),
            "downsample": (config.hop_length,),
            "channels": 1,
            "sample_rate": config.output_sampling_rate,
        }

    def assemble(self, network: Any) -> None:
        super().assemble(network)
        self.encoder_hop = network.config.encoder_hop_length

    def heard(self, config: Any) -> tuple[int, int]:
        return config.input_sampling_rate, 0

    def to_latent(self, signal: Tensor) -> Tensor:
        padded = self.modality.pad(signal, self.spec)
        audio = resample(padded, self.spec.sample_rate or 0, self.encoder.sample_rate)
        # A frame of silence more, as the reference adds it: the spectrogram, without a margin, has one frame less.
        return self.encoder(F.pad(audio, (0, self.encoder_hop)))


XCODEC = register(
    "xcodec-hubert-librispeech",
    XCodec,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 8,
        residual=True,
        downsample=(320,),
        channels=1,
        sample_rate=16000,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2408.17175",
        source="https://github.com/zhenye234/xcodec",
    ),
    **published(XCodec, "hf-audio/xcodec-hubert-librispeech"),
    card="xcodec",
)
for trained in ("hubert-general", "hubert-general-balanced"):
    register(replace(XCODEC, f"xcodec-{trained}", **published(XCodec, f"hf-audio/xcodec-{trained}")))
WAVLM = {"semantic_model_config": {"model_type": "wavlm"}}
for trained, license in (("wavlm-mls", "not stated"), ("wavlm-more-data", "CC BY 4.0")):
    source = published(XCodec, f"hf-audio/xcodec-{trained}", **WAVLM)
    register(replace(XCODEC, f"xcodec-{trained}", **source, weights_license=license))
alias("xcodec", "xcodec-hubert-librispeech")


register(
    "higgs-audio-v2",
    HiggsAudioV2,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 8,
        residual=True,
        downsample=(960,),
        channels=1,
        sample_rate=24000,
        code_license="Apache-2.0",
        weights_license="Boson Higgs Audio 2 Community License",
        paper="https://github.com/boson-ai/higgs-audio",
        source="https://huggingface.co/bosonai/higgs-audio-v2-tokenizer",
    ),
    **published(
        HiggsAudioV2,
        "bosonai/higgs-audio-v2-tokenizer",
        target_bandwidths=(0.5, 1, 1.5, 2),
        acoustic_model_config=HIGGS_ACOUSTIC,
    ),
    card="xcodec",
)

register(
    "xcodec2",
    XCodec2,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="fsq",
        codebook_sizes=(65536,),
        downsample=(320,),
        extra_frame=True,
        channels=1,
        sample_rate=16000,
        code_license="Apache-2.0",
        weights_license="CC BY-NC 4.0",
        paper="https://arxiv.org/abs/2502.04128",
        source="https://huggingface.co/HKUSTAudio/xcodec2-hf",
    ),
    **published(XCodec2, "HKUSTAudio/xcodec2-hf"),
    card="xcodec2",
)

register(
    "neucodec",
    NeuCodec,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="fsq",
        codebook_sizes=(65536,),
        downsample=(480,),
        channels=1,
        sample_rate=24000,
        code_license="Apache-2.0",
        weights_license="Apache-2.0",
        paper="https://arxiv.org/abs/2509.09550",
        source="https://github.com/neuphonic/neucodec",
    ),
    **published(NeuCodec, "neuphonic/neucodec"),
    card="xcodec2",
)
