"""S3Tokenizer: CosyVoice's speech tokens, 25 or 50 a second at 16 kHz, which say what is said; it does not decode.

Papers: CosyVoice (arXiv 2407.05407), CosyVoice 2 (arXiv 2412.10117), CosyVoice 3 (arXiv 2505.17589).
Reference: xingchensong/S3Tokenizer, release 0.3.0, which computes what the authors' published ONNX graphs do.
The lower half of a speech recogniser's encoder, shaped like Whisper's, with a quantizer where it was cut. Version 1 has
stored positions and a codebook; 2 and 3 have rotary positions, a convolution over the values beside each attention, and
eight numbers that are rounded to three levels. A token depends on all of its window of 30 seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.causal_transformer import angles, rotate
from zoo.layers.overlap import frames_of_chunk
from zoo.layers.whisper import (
    HOP_LENGTH,
    N_FFT,
    SAMPLE_RATE,
    WINDOW_SECONDS,
    Attention,
    Layer,
    LogMel,
    Stem,
    sinusoids,
)
from zoo.quantizers import FSQ, VectorQuantizer
from zoo.quantizers.base import without_autocast
from zoo.registry import FileSource, HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.tracing import larger

BANDS = 128
POSITIONS = 1500  # that version 1 stores
MEMORY_TAPS = 31
OVERLAP_SECONDS = 4  # of two windows; each gives the tokens of its half
LEAST = N_FFT // 2 + 1  # samples that the spectrogram needs to reflect half a window at either end
STRETCH = 0.999  # of the tanh before it is rounded, so that its ends are not borders


class MemoryAttention(Attention):
    """Attention with rotary positions, to which a depthwise convolution over the values adds its own result.

    The sum of the values and the convolution is no part of what the heads' projection receives.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.memory = nn.Conv1d(width, width, MEMORY_TAPS, padding=MEMORY_TAPS // 2, groups=width, bias=False)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        cos, sin = angles(0, x.shape[1], x.shape[2] // self.num_heads, x.device)
        q, k = (rotate(self.heads(project(x)), cos, sin) for project in (self.query, self.key))
        value = self.value(x)
        return self.attend(q, k, self.heads(value), allowed) + self.memory(value.mT).mT + value


class Encoder(nn.Module):
    """Log-mel frames `[B, 128, frames]` of one window to `[B, width, tokens]`."""

    def __init__(self, width: int, num_heads: int, hidden_dim: int, num_layers: int, stride: int, memory: bool):
        super().__init__()
        self.stem = Stem(BANDS, width, stride=stride)
        self.positions = None if memory else nn.Parameter(sinusoids(POSITIONS, width))
        attention = MemoryAttention if memory else Attention
        self.layers = nn.ModuleList(Layer(width, num_heads, hidden_dim, attention) for _ in range(num_layers))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.stem(mel.to(self.stem.conv1.weight.dtype))
        if self.positions is not None:
            x = x + self.positions.narrow(0, 0, x.shape[1])
        for layer in self.layers:
            x = layer(x)
        return x.mT


class S3Tokenizer(Tokenizer):
    """Speech tokenizer with one code per frame, which only encodes.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, 1, tokens]`, as many as the authors' code gives:
    `tokens = ceil(floor(samples / 160) * 160 / spec.hop_length)`, and one of a clip of less than 10 ms, which their
    code refuses. Latents are `[B, width, tokens]`. `embed` gives rows of the codebook, `[B, width, tokens]`, or where
    there is none the rounded numbers -1, 0 and 1, `[B, 8, tokens]`.

    `encode` takes `chunk_seconds=`, the length of the windows that longer audio is encoded in, by default the authors'
    30 seconds. Neighbours overlap by 4 seconds, and of these each gives the tokens of its own half. Tokens depend on
    the whole window, so other windows give other tokens. Version 1 has positions for windows of 1,500 tokens.

    Args:
        width, num_heads, hidden_dim, num_layers: sizes of the transformer.
        stride: of the first convolution; the second one's is 2.
        memory: whether layers have rotary positions and a memory, as in versions 2 and 3, in place of stored positions.

    The spec's `quantizer`, "vq" or "fsq", says which one there is.
    """

    encoder: Encoder
    encode_options = ("chunk_seconds",)
    encode_only = (
        "its tokens become speech in CosyVoice's flow-matching model and vocoder, which also take a voice and a "
        "prompt, and which zoo does not have"
    )
    cannot_stream = (
        "a token depends on its whole window of 30 seconds, and the level of the loudest passage of a clip is part of "
        "every frame. Shorter windows, chunk_seconds=, have other codes; what share of the codes was not measured, for "
        "want of the published weights"
    )
    small: ClassVar = {"width": 32, "num_heads": 2, "hidden_dim": 64, "num_layers": 2}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        width: int = 1280,
        num_heads: int = 20,
        hidden_dim: int = 5120,
        num_layers: int = 6,
        stride: int = 2,
        memory: bool = True,
    ):
        super().__init__(spec)
        if spec.downsample != (2 * stride * HOP_LENGTH,) or spec.feature_hop != HOP_LENGTH:
            raise InputError(
                f"{spec.name} needs downsample ({2 * stride * HOP_LENGTH},) for stride {stride}, and feature_hop "
                f"{HOP_LENGTH}, got {spec.downsample} and {spec.feature_hop}"
            )
        self.log_mel = LogMel(BANDS)
        self.encoder = Encoder(width, num_heads, hidden_dim, num_layers, stride, memory)
        self.project_in: nn.Linear | None = None
        if spec.quantizer == "fsq":
            quantizer = FSQ((3,) * 8, stretch=STRETCH)
            self.project_in = nn.Linear(width, quantizer.dim)
            self.quantizer = quantizer
        else:
            self.quantizer = VectorQuantizer(width, spec.codebook_sizes[0])

    def to_latent(self, signal: Tensor, chunk_seconds: float = WINDOW_SECONDS) -> Tensor:
        audio = F.pad(signal[:, 0], (0, larger(LEAST - signal.shape[-1], 0)))
        if torch.compiler.is_compiling():  # a traced graph takes one window
            return self.encoder(self.log_mel(audio))
        window, overlap = self.window(chunk_seconds)
        features = self.spec.hop_length // HOP_LENGTH  # of a token
        if audio.shape[-1] // HOP_LENGTH <= window * features:
            return self.encoder(self.log_mel(audio))
        mels = self.log_mel.in_windows(audio, window * features, (window - overlap) * features)
        return torch.cat(list(joined(map(self.encoder, mels), overlap // 2)), dim=-1)

    def window(self, seconds: float) -> tuple[int, int]:
        """Return the tokens of a window, and of the overlap of two; InputError for a length that is none."""
        window = frames_of_chunk(self.spec, seconds)
        overlap = OVERLAP_SECONDS * SAMPLE_RATE // self.spec.hop_length
        most = window if self.encoder.positions is None else len(self.encoder.positions)
        if not overlap < window <= most:
            limit = "" if window <= most else f" and at most {most * self.spec.hop_length // SAMPLE_RATE}"
            raise InputError(
                f"expected chunk_seconds of more than {OVERLAP_SECONDS}, by which two windows overlap{limit}, "
                f"got {seconds}"
            )
        return window, overlap

    def quantize(self, latent: Tensor, num_codebooks: int | None = None, num_scales: int | None = None) -> Tensor:
        with without_autocast(latent):  # all in float32: codes depend on it
            if self.project_in is None:
                latent = F.normalize(latent.float(), dim=1)  # the rows of the codebook have other lengths
            else:
                weight, bias = self.project_in.weight.float(), self.project_in.bias.float()
                latent = F.linear(latent.float().mT, weight, bias).mT
            return super().quantize(latent, num_codebooks, num_scales)


def joined(windows: Iterator[Tensor], half: int) -> Iterator[Tensor]:
    """Yield each of several windows `[..., tokens]` without `half` tokens at every side where it has a neighbour."""
    before = next(windows)
    for after in windows:
        yield before[..., :-half]
        before = after[..., half:]
    yield before


# Checkpoints: state dicts, as the reference saves them, and graphs

Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]


def state_rules(prefix: str = "") -> list[Rule]:
    """Rules of a state dict with the reference's names; a prefix stands before all of them."""
    blocks, layers = f"{prefix}encoder.blocks.{{i}}", "encoder.layers.{i}"
    return [
        (f"{prefix}encoder.conv1.", "encoder.stem.conv1."),
        (f"{prefix}encoder.conv2.", "encoder.stem.conv2."),
        (f"{prefix}encoder.positional_embedding", "encoder.positions"),
        (f"{blocks}.attn.fsmn_block.", f"{layers}.attention.memory."),
        (f"{blocks}.attn.", f"{layers}.attention."),
        (f"{blocks}.attn_ln.", f"{layers}.norm1."),
        (f"{blocks}.mlp.0.", f"{layers}.expand."),
        (f"{blocks}.mlp.2.", f"{layers}.contract."),
        (f"{blocks}.mlp_ln.", f"{layers}.norm2."),
        (f"{prefix}quantizer._codebook.embed", "quantizer.codebook"),
        (f"{prefix}quantizer._codebook.project_down.", "project_in."),
    ]


LINEAR = {
    "attn/query": "attention.query",
    "attn/key": "attention.key",
    "attn/value": "attention.value",
    "attn/out": "attention.out",
    "mlp/mlp.0": "expand",
    "mlp/mlp.2": "contract",
}
NORMS = {"attn_ln": "norm1", "mlp_ln": "norm2"}
GAIN_AND_BIAS = ("Mul:0", "Add:0")  # of a norm that is written out
FUSED = ("LayerNormalization:0", "LayerNormalization:1")
CODEBOOK: Rule = ("/quantizer/rq/model/layers.0/_codebook/Pow:0", "quantizer.codebook", torch.t)


def graph(stem: tuple[str, str, str, str], norm: tuple[str, str], *others: Rule) -> KeyMap:
    """Key map of an ONNX graph, whose linear maps are stored `[in, out]`.

    Constants of the computation (rotary tables, numbers) are not listed anywhere, so that what no rule names is
    ignored.

    Args:
        stem: names of weight and bias of both convolutions.
        norm: uses that stand for gain and bias in a norm's module.
        others: rules of positions, memory and quantizer.
    """
    blocks, layers = "/blocks.{i}", "encoder.layers.{i}"
    rules: list[Rule] = [
        *zip(stem, (f"encoder.stem.conv{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")), strict=True),
        *((f"{blocks}/{name}/MatMul:0", f"{layers}.{ours}.weight", torch.t) for name, ours in LINEAR.items()),
        *((f"{blocks}/{name}/Add:0", f"{layers}.{ours}.bias") for name, ours in LINEAR.items()),
        *((f"{blocks}/{name}/{norm[0]}", f"{layers}.{ours}.weight") for name, ours in NORMS.items()),
        *((f"{blocks}/{name}/{norm[1]}", f"{layers}.{ours}.bias") for name, ours in NORMS.items()),
        *others,
    ]
    return KeyMap(*rules, ignore=("",))


def numbered(first: int) -> tuple[str, str, str, str]:
    """Names that the exporter gave the tensors of both convolutions."""
    one, two, three, four = (f"onnx::Conv_{first + i}" for i in range(4))
    return one, two, three, four


def plain_stem(module: str) -> tuple[str, str, str, str]:
    return f"{module}conv1.weight", f"{module}conv1.bias", f"{module}conv2.weight", f"{module}conv2.bias"


STATE = FileSource(keys=KeyMap(*state_rules()))
POSITIONS_RULE: Rule = ("encoders.positional_embedding", "encoder.positions")
PROJECTION_BIAS: Rule = ("quantizer.project_in.bias", "project_in.bias")
V1_50 = graph(numbered(1519), GAIN_AND_BIAS, POSITIONS_RULE, CODEBOOK)
V1_25 = graph(plain_stem("encoders."), GAIN_AND_BIAS, POSITIONS_RULE, CODEBOOK)
V2 = graph(
    numbered(2216),
    FUSED,
    ("/blocks.{i}/attn/fsmn_block/Conv:0", "encoder.layers.{i}.attention.memory.weight"),
    PROJECTION_BIAS,
    ("onnx::MatMul_2536", "project_in.weight", torch.t),
)
V3 = graph(
    ("/conv1/Conv:0", "/conv1/Conv:1", "/conv2/Conv:0", "/conv2/Conv:1"),
    GAIN_AND_BIAS,
    ("blocks.{i}.attn.fsmn_block.weight", "encoder.layers.{i}.attention.memory.weight"),
    PROJECTION_BIAS,
    ("/quantizer/project_in/MatMul:0", "project_in.weight", torch.t),
)
# Version 2 inside Chatterbox's network that turns its tokens into speech.
CHATTERBOX = KeyMap(
    *state_rules("tokenizer."),
    ignore=("flow.", "mel2wav.", "speaker_encoder.", "tokenizer._mel_filters", "tokenizer.window"),
)

S3_V2 = register(
    "s3-tokenizer-v2-25hz",
    S3Tokenizer,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="fsq",
        codebook_sizes=(3**8,),
        downsample=(4 * HOP_LENGTH,),
        feature_hop=HOP_LENGTH,
        channels=1,
        sample_rate=SAMPLE_RATE,
        code_license="Apache-2.0",
        weights_license="Apache-2.0 (tag of the Hub repositories of the CosyVoice family)",
        paper="https://arxiv.org/abs/2412.10117",
        source="https://github.com/xingchensong/S3Tokenizer",
    ),
    hub=(
        HubSource("FunAudioLLM/CosyVoice2-0.5B", "speech_tokenizer_v2.onnx", keys=V2),
        HubSource("ResembleAI/chatterbox", "s3gen.safetensors", keys=CHATTERBOX),
        STATE,
    ),
    card="s3-tokenizer",
)
register(
    replace(
        S3_V2,
        "s3-tokenizer-v3-25hz",
        config={"num_layers": 12},
        weights_license='Apache-2.0 (tag of Fun-CosyVoice3-0.5B-2512, whose card says "for academic purposes only")',
        paper="https://arxiv.org/abs/2505.17589",
        hub=(HubSource("FunAudioLLM/Fun-CosyVoice3-0.5B-2512", "speech_tokenizer_v3.onnx", keys=V3), STATE),
    )
)
S3_V1 = register(
    replace(
        S3_V2,
        "s3-tokenizer-v1-25hz",
        config={"memory": False},
        quantizer="vq",
        codebook_sizes=(4096,),
        paper="https://arxiv.org/abs/2407.05407",
        hub=(HubSource("cqchangm/CosyVoice-300M-25Hz", "speech_tokenizer_v1.onnx", keys=V1_25), STATE),
    )
)
register(
    replace(
        S3_V1,
        "s3-tokenizer-v1-50hz",
        config={"stride": 1},
        downsample=(2 * HOP_LENGTH,),
        hub=(
            HubSource("FunAudioLLM/CosyVoice-300M", "speech_tokenizer_v1.onnx", keys=V1_50),
            HubSource("model-scope/CosyVoice-300M", "speech_tokenizer_v1.onnx", keys=V1_50),
            STATE,
        ),
    )
)
alias("s3-tokenizer", "s3-tokenizer-v2-25hz")
