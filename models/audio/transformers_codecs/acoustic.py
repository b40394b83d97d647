"""EnCodec and DAC: audio to residual codes by convolutions, and back.

Papers: High Fidelity Neural Audio Compression (arXiv 2210.13438), High-Fidelity Audio Compression with Improved RVQGAN
(arXiv 2306.06546). Reference: transformers 5.24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.lstm import LSTM
from zoo.models.audio.transformers_codecs.base import TransformersCodec, folded, published
from zoo.models.audio.transformers_codecs.quantizers import NearestCodebooks, ProjectedCodebooks
from zoo.registry import alias, register, replace
from zoo.spec import TokenizerSpec


class EnCodec(TransformersCodec):
    """Audio tokenizer with up to 32 residual codebooks: convolutions and an LSTM on both sides.

    Audio `[B, 1, samples]` of any length; codes `[B, num_codebooks, frames]`, `frames = ceil(samples / hop_length)`.
    """

    model_type = "encodec"
    small: ClassVar = {"sizes": {"num_filters": 4, "hidden_size": 16}}

    @classmethod
    def checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if settings.get("normalize") or settings.get("chunk_length_s"):
            raise InputError(
                "EnCodec with normalize or chunk_length_s (facebook/encodec_48khz) cannot be a tokenizer here: each "
                "second is divided by its loudness, which is no code, so that codes alone do not decode"
            )
        return settings

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        return {
            "quantizer": "residual-vq",
            "residual": True,
            "codebook_sizes": (config.codebook_size,) * config.num_quantizers,
            "downsample": (config.hop_length,),
            "channels": config.audio_channels,
            "sample_rate": config.sampling_rate,
        }

    def assemble(self, network: Any) -> None:
        for module in network.modules():
            if hasattr(module, "padding_total"):
                count_in_integers(module)
        for layers in (network.encoder.layers, network.decoder.layers):
            for index, layer in enumerate(layers):
                if hasattr(layer, "lstm"):
                    layers[index] = Recurrent(layer.lstm)
        config = network.config
        self.encoder, self.decoder = network.encoder, network.decoder
        self.quantizer = NearestCodebooks(config.hidden_size, config.codebook_size, network.quantizer.layers)

    @classmethod
    def keys_of(cls, settings: Mapping[str, Any]) -> KeyMap:
        if settings.get("norm_type", "weight_norm") != "weight_norm":
            return KeyMap()
        places = [
            f"{side}.layers.{{i}}.{inner}conv"
            for side in ("encoder", "decoder")
            for inner in ("", "block.{j}.", "shortcut.")
        ]
        return KeyMap(*(folded(place, place) for place in places))


@dataclass(frozen=True)
class WholeSteps:
    """How many samples of padding complete the last step of a convolution with this stride."""

    stride: int

    def __call__(self, hidden_states: Tensor) -> int:
        return -hidden_states.shape[-1] % self.stride


def count_in_integers(conv: Any) -> None:
    """Let one of EnCodec's convolutions count in integers: tensors as sizes have no values in a traced graph."""
    (kernel,), (stride,), (dilation,) = conv.conv.kernel_size, conv.conv.stride, conv.conv.dilation
    del conv.padding_total
    conv.padding_total = (kernel - 1) * dilation + 1 - stride
    conv._get_extra_padding_for_conv1d = WholeSteps(stride)


class Recurrent(nn.Module):
    """One of EnCodec's recurrent layers, whose weights have the same names, so that graphs of it can be made."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.lstm = LSTM(lstm.input_size, lstm.num_layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, time]` to the same shape."""
        return self.lstm(x.mT)[0].mT + x


class DAC(TransformersCodec):
    """Audio tokenizer with residual codebooks of eight channels: convolutions with snakes on both sides.

    Audio `[B, 1, samples]`, padded with silence to whole frames; codes `[B, num_codebooks, frames]`. Where a stride is
    odd, the decoder returns a few samples less than whole frames, and silence takes their place.
    """

    model_type = "dac"
    small: ClassVar = {"sizes": {"encoder_hidden_size": 4, "decoder_hidden_size": 32}}

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        return {
            "quantizer": "residual-vq",
            "residual": True,
            "codebook_sizes": (config.codebook_size,) * config.n_codebooks,
            "downsample": (config.hop_length,),
            "channels": 1,
            "sample_rate": config.sampling_rate,
        }

    def assemble(self, network: Any) -> None:
        config = network.config
        self.encoder, self.decoder = network.encoder, network.decoder
        self.quantizer = ProjectedCodebooks(config.hidden_size, config.codebook_size, network.quantizer.quantizers)

    def to_latent(self, signal: Tensor) -> Tensor:
        return self.encoder(self.modality.pad(signal, self.spec))

    def from_latent(self, latent: Tensor) -> Tensor:
        audio = self.decoder(latent)
        return F.pad(audio, (0, latent.shape[-1] * self.spec.hop_length - audio.shape[-1]))

    @classmethod
    def keys_of(cls, settings: Mapping[str, Any]) -> KeyMap:
        return KeyMap(("quantizer.quantizers.{i}.", "quantizer.layers.{i}."))


ENCODEC = register(
    "encodec-24khz",
    EnCodec,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 32,
        residual=True,
        default_codebooks=8,  # the authors' default, 6 kbit/s
        downsample=(320,),
        channels=1,
        sample_rate=24000,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2210.13438",
        source="https://github.com/facebookresearch/encodec",
    ),
    **published(EnCodec, "facebook/encodec_24khz"),
    card="encodec",
)
register(
    replace(
        ENCODEC,
        "encodec-32khz",
        **published(
            EnCodec,
            "facebook/encodec_32khz",
            target_bandwidths=(2.2,),
            sampling_rate=32000,
            num_filters=64,
            upsampling_ratios=(8, 5, 4, 4),
            use_causal_conv=False,
            codebook_size=2048,
            use_conv_shortcut=False,
        ),
        codebook_sizes=(2048,) * 4,
        default_codebooks=None,
        downsample=(640,),
        sample_rate=32000,
        weights_license="CC BY-NC 4.0",
        paper="https://arxiv.org/abs/2306.05284",
        source="https://github.com/facebookresearch/audiocraft",
    )
)
alias("encodec", "encodec-24khz")

DESCRIPT = register(
    "dac-44khz",
    DAC,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 9,
        residual=True,
        downsample=(512,),
        channels=1,
        sample_rate=44100,
        code_license="Apache-2.0",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2306.06546",
        source="https://github.com/descriptinc/descript-audio-codec",
    ),
    **published(DAC, "descript/dac_44khz", sampling_rate=44100),
    card="dac",
)
for kilohertz, codebooks in ((24, 32), (16, 12)):
    strides = (2, 4, 5, 8)
    register(
        replace(
            DESCRIPT,
            f"dac-{kilohertz}khz",
            **published(
                DAC,
                f"descript/dac_{kilohertz}khz",
                downsampling_ratios=strides,
                n_codebooks=codebooks,
                sampling_rate=1000 * kilohertz,
            ),
            codebook_sizes=(1024,) * codebooks,
            downsample=(math.prod(strides),),
            sample_rate=1000 * kilohertz,
        )
    )
alias("dac", "dac-44khz")
