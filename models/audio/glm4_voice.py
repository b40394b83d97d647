"""GLM-4-Voice's tokenizer: speech at 16 kHz to 12.5 tokens a second, which say what is said; it does not decode.

Papers: Scaling Speech-Text Pre-training with Synthetic Interleaved Data (ICLR 2025, arXiv 2411.17607) and GLM-4-Voice
(arXiv 2412.02612). Reference: THUDM/GLM-4-Voice at eb00ce9, speech_tokenizer.
The lower half of the encoder of Whisper-large-v3, with causal convolutions, attention in blocks of 4 seconds, an
average over four frames, and one codebook, fine-tuned to recognise speech. A frame sees its whole block, so a token is
final when its block is complete. Audio is cut into pieces of 30 seconds, each of which is encoded by itself.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.layers.whisper import HOP_LENGTH, SAMPLE_RATE, WINDOW_SECONDS, Layer, LogMel, Stem, layer_rules, sinusoids
from zoo.quantizers import VectorQuantizer
from zoo.registry import FileSource, HubSource, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

FRAME = 2 * HOP_LENGTH  # samples of a frame of the transformer
POOLED = 4  # frames that become one token
PIECE = WINDOW_SECONDS * SAMPLE_RATE


class Encoder(nn.Module):
    """At most 30 seconds `[B, 1, samples]` to `[B, width, ceil(samples / 1280)]`."""

    def __init__(self, bands: int, width: int, num_heads: int, hidden_dim: int, num_layers: int, block: int):
        super().__init__()
        self.block = block
        self.log_mel = LogMel(bands)
        self.stem = Stem(bands, width, causal=True)
        self.positions = nn.Parameter(sinusoids(PIECE // FRAME, width))
        self.layers = nn.ModuleList(Layer(width, num_heads, hidden_dim) for _ in range(num_layers))

    def forward(self, audio: Tensor) -> Tensor:
        samples = audio.shape[-1]
        padded = F.pad(audio[:, 0], (0, -samples % (POOLED * FRAME)))
        x = self.stem(self.log_mel(padded).to(audio.dtype))
        x = x + self.positions.narrow(0, 0, x.shape[1])
        allowed = self.allowed(x.shape[1], (samples + FRAME - 1) // FRAME, x.device)
        for layer in self.layers:
            x = layer(x, allowed)
        # The last token may average frames of padding, which nothing has attended to.
        return F.avg_pool1d(x.mT, POOLED)

    def allowed(self, frames: int, valid: int, device: torch.device) -> Tensor:
        """Return which frames (columns) each one sees: the valid ones of its own and of earlier blocks."""
        frame = torch.arange(frames, device=device)
        block = frame // self.block
        return (block <= block[:, None]) & (frame < valid)


class GLM4VoiceTokenizer(Tokenizer):
    """Speech tokenizer with one Euclidean codebook, which only encodes.

    Audio `[B, 1, samples]` of any length at 16 kHz; codes `[B, 1, tokens]`, `tokens = ceil(samples / 1280)`; latents
    `[B, width, tokens]`. Longer audio is encoded in pieces of 30 seconds, as the authors do.

    Args:
        bands: bands of the mel spectrogram.
        width, num_heads, hidden_dim, num_layers: sizes of the transformer.
        block: frames of 20 ms in a block of its attention.
    """

    encode_only = (
        "its tokens become speech in another network, the flow-matching decoder of zai-org/glm-4-voice-decoder, "
        "which zoo does not have"
    )
    cannot_stream = (
        "a frame attends to its whole block of 4 seconds, and the level of the loudest passage of 30 seconds is part "
        "of every frame of them. Shorter pieces, encoded one by one, have other codes; what share of the codes was "
        "not measured, for want of the published weights"
    )
    small: ClassVar = {"width": 32, "num_heads": 2, "hidden_dim": 64, "num_layers": 2, "block": 5}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        bands: int = 128,
        width: int = 1280,
        num_heads: int = 20,
        hidden_dim: int = 5120,
        num_layers: int = 16,
        block: int = 200,
    ):
        super().__init__(spec)
        self.encoder = Encoder(bands, width, num_heads, hidden_dim, num_layers, block)
        self.quantizer = VectorQuantizer(width, spec.codebook_sizes[0])

    def to_latent(self, signal: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # a traced graph takes one piece
            return self.encoder(signal)
        return torch.cat([self.encoder(piece) for piece in signal.split(PIECE, dim=-1)], dim=-1)


UNUSED = ("embed_positions2.", "ema_count", "ema_weight")  # positions of the hidden states; state of the training


def rules(prefix: str) -> list[tuple[str, str]]:
    return [
        (f"{prefix}conv1.", "encoder.stem.conv1."),
        (f"{prefix}conv2.", "encoder.stem.conv2."),
        (f"{prefix}embed_positions.weight", "encoder.positions"),
        *layer_rules(f"{prefix}layers", "encoder.layers"),
        (f"{prefix}codebook.weight", "quantizer.codebook"),
    ]


CHECKPOINT = KeyMap(*rules(""), ignore=UNUSED)
# Of the whole model that recognises speech, as the authors' second loader takes it.
RECOGNIZER = KeyMap(
    *rules("model.encoder."),
    ignore=(
        *(f"model.encoder.{name}" for name in (*UNUSED, "layer_norm.")),
        *(f"model.encoder.layers.{layer}." for layer in range(16, 32)),
        "model.decoder.",
        "proj_out.",
    ),
)

register(
    "glm4-voice-tokenizer",
    GLM4VoiceTokenizer,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="vq",
        codebook_sizes=(16384,),
        downsample=(POOLED * FRAME,),
        channels=1,
        sample_rate=SAMPLE_RATE,
        code_license="Apache-2.0",
        weights_license="GLM-4 model license (THUDM/glm-4-voice-9b)",
        paper="https://arxiv.org/abs/2411.17607",
        source="https://github.com/zai-org/GLM-4-Voice",
    ),
    hub=(HubSource("zai-org/glm-4-voice-tokenizer", "model.safetensors"), FileSource(keys=RECOGNIZER)),
    keys=CHECKPOINT,
    card="glm4-voice-tokenizer",
)
