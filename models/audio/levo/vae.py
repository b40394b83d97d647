"""The waveform autoencoder of LeVo's codec: stereo at 48 kHz to 25 latents a second and back.

It is the "Oobleck" of stable-audio-tools (Stability-AI at 50049e3), a continuous autoencoder of weight-normalised
convolutions with periodic activations.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from zoo.layers.dac import DILATIONS, DecoderStage, EncoderStage
from zoo.layers.overlap import each_chunk, joined
from zoo.layers.snake import SnakeBeta
from zoo.layers.weight_norm import WeightNormConv1d

REACH = 3 * sum(DILATIONS)  # steps on either side that a stage's residual units see


class WaveformVAE(nn.Module):
    """Continuous autoencoder of stereo audio.

    Args:
        dim: channels of a latent.
        width: channels of the first stage. multipliers: channels of each further step, in multiples of `width`.
        strides: strides of the encoder's stages, first to last.
    """

    def __init__(self, dim: int, width: int, multipliers: tuple[int, ...], strides: tuple[int, ...]):
        super().__init__()
        widths = [width, *(width * multiplier for multiplier in multipliers)]
        steps = list(zip(widths[:-1], widths[1:], strides, strict=True))
        self.strides = strides
        self.encoder = nn.Sequential(
            WeightNormConv1d(2, width, 7, padding=3),
            *(EncoderStage(*step, SnakeBeta) for step in steps),
            SnakeBeta(widths[-1]),
            WeightNormConv1d(widths[-1], 2 * dim, 3, padding=1),
        )
        head = WeightNormConv1d(width, 2, 7, padding=3)
        head.register_parameter("bias", None)
        self.decoder = nn.Sequential(
            WeightNormConv1d(dim, widths[-1], 7, padding=3),
            *(DecoderStage(high, low, stride, SnakeBeta) for low, high, stride in reversed(steps)),
            SnakeBeta(width),
            head,
        )

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale `[B, dim, frames]` of the posterior of audio `[B, 2, frames * hop]`.

        The posterior's deviation is `softplus(scale) + 1e-4`.
        """
        mean, scale = self.encoder(audio).chunk(2, dim=1)
        return mean, scale

    def decode(self, latent: Tensor, chunk_frames: int) -> Tensor:
        """Return audio `[B, 2, frames * hop]` for latents `[B, dim, frames]`, whatever is computed at once."""
        hop, frames = math.prod(self.strides), latent.shape[-1]
        return joined(each_chunk(self.decoder, latent, frames, chunk_frames, self.reach, made=hop), frames * hop)

    @property
    def reach(self) -> int:
        """An upper bound of the frames on either side that a sample depends on."""
        rate, frames = 1, 3.0
        for stride in reversed(self.strides):
            frames += 1 / rate
            rate *= stride
            frames += REACH / rate
        return math.ceil(frames + 3 / rate)
