"""SpeechTokenizer: speech at 16 kHz to eight residual codebooks at 50 frames a second, of which the first has content.

Paper: SpeechTokenizer: Unified Speech Tokenizer for Speech Language Models (ICLR 2024, arXiv 2308.16692).
Reference: ZhangXInFD/SpeechTokenizer at 30c96fb.
The network is EnCodec's, not causal. In training alone, the rows of the first codebook are made to resemble HuBERT's
features; what the others add is mostly the voice. The encoder's LSTM runs both ways, so that every code depends on the
whole clip: a clip that is encoded in pieces gets other codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from zoo.checkpoints import KeyMap, flag
from zoo.layers.overlap import frames_of_chunk
from zoo.layers.seanet import Decoder, Encoder, decoder_rules, elu, encoder_rules
from zoo.layers.snake import Snake
from zoo.quantizers import ResidualVQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer


class SpeechTokenizer(Tokenizer):
    """Speech tokenizer with residual Euclidean codebooks, the first of them a code of what is said.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, codebooks, frames]`, `frames = ceil(samples / 320)`;
    latents `[B, dim, frames]`. `encode` and `decode` take `num_codebooks=`, the first few codebooks, and
    `chunk_seconds=`, how much the convolutions compute at once; the result does not depend on that.

    Args:
        strides: strides of the encoder's stages, first to last; the decoder's are the same backwards.
        width: channels of the encoder's first stage, which each stage doubles, and of the decoder's last.
        dim: channels of a codebook row.
        snake: whether activations are Snake, with a factor of each channel, instead of ELU.
        revive_below: threshold of `VectorQuantizer`; it counts latents of a batch, so small batches need a small one.
    """

    encode_options = ("chunk_seconds",)
    decode_options = ("chunk_seconds",)
    cannot_stream = (
        "the encoder's LSTM runs both ways, so that a code depends on the whole signal. chunk_seconds= bounds the "
        "memory for a signal that is there as a whole, and changes no code. Encoding windows one by one does: 8 % of "
        "the codes with windows of 5 seconds, 22 % with 2 and 35 % with 1, of the first codebook's 1, 4 and 7 % "
        "(speechtokenizer-nano on LibriSpeech)"
    )
    small: ClassVar = {"width": 4, "dim": 16}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        strides: tuple[int, ...] = (2, 4, 5, 8),
        width: int = 64,
        dim: int = 1024,
        snake: bool = False,
        revive_below: float = 2.0,
    ):
        super().__init__(spec)
        activation = Snake if snake else elu
        self.encoder = Encoder(tuple(strides), width, dim, bidirectional=True, activation=activation)
        self.quantizer = ResidualVQ(
            dim,
            spec.codebook_sizes,
            spec.num_codebooks,
            update="ema",
            kmeans_init=True,
            kmeans_iters=50,
            revive_below=revive_below,
        )
        self.decoder = Decoder(tuple(reversed(strides)), width, dim, activation=activation)

    def to_latent(self, signal: Tensor, chunk_seconds: float = 10.0) -> Tensor:
        return self.encoder(signal, frames_of_chunk(self.spec, chunk_seconds))

    def from_latent(self, latent: Tensor, chunk_seconds: float = 10.0) -> Tensor:
        return self.decoder(latent, frames_of_chunk(self.spec, chunk_seconds))


def quantizer_rules() -> list[tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]]:
    published, ours = "quantizer.vq.layers.{i}._codebook", "quantizer.layers.{i}"
    return [
        (f"{published}.embed", f"{ours}.codebook"),
        (f"{published}.embed_avg", f"{ours}.codebook_sum"),
        (f"{published}.cluster_size", f"{ours}.cluster_size"),
        (f"{published}.inited", f"{ours}.initialized", flag),
    ]


RULES = (*encoder_rules("encoder.model", "conv."), *quantizer_rules(), *decoder_rules("decoder.model"))
IGNORED = ("transform.",)  # the projection onto HuBERT's features, of which training alone makes use
CHECKPOINT = KeyMap(*RULES, ignore=IGNORED)

HUBERT_AVG = register(
    "speechtokenizer-hubert-avg",
    SpeechTokenizer,
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
        paper="https://arxiv.org/abs/2308.16692",
        source="https://github.com/ZhangXInFD/SpeechTokenizer",
    ),
    hub=HubSource("fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/SpeechTokenizer.pt"),
    keys=CHECKPOINT,
    card="speechtokenizer",
)
# The sizes of this one are the other's: its configuration was not seen.
register(
    replace(
        HUBERT_AVG,
        "speechtokenizer-snake",
        config={"snake": True},
        hub=HubSource("fnlp/AnyGPT-speech-modules", "speechtokenizer/ckpt.dev"),
    )
)
alias("speechtokenizer", "speechtokenizer-hubert-avg")

# Trained here, by `trainers/recipes/speechtokenizer-nano.yaml`; ships with the package. The speech is CC BY 4.0, and so
# are the weights.
register(
    replace(
        HUBERT_AVG,
        "speechtokenizer-nano",
        downsample=(160,),
        weights_license="CC BY 4.0",
        # Few stages with long strides, first to last: a small network spends less time at the full rate.
        config={"strides": (10, 8, 2), "width": 16, "dim": 32, "revive_below": 0.03},
        weights="weights/speechtokenizer-nano.safetensors",
        card="speechtokenizer-nano",
    )
)
