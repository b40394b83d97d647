"""Training that begins without anything lost between encoder and decoder."""

from __future__ import annotations

from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers import VectorQuantizer
from zoo.quantizers.base import Quantizer, QuantizerOutput


class Unquantized:
    """A forward hook of a quantizer that, before a step, lets the decoder have the latents themselves.

    A network whose untrained latents hardly depend on the signal learns to use a few codes at most; with nothing lost
    it first learns to use its latents. The codebook follows them meanwhile, and none of its losses counts. `step` says
    how far training is.

    Args:
        quantizer: with one codebook of learned rows. InputError for another.
        until: the first step that is quantized.
    """

    def __init__(self, quantizer: Quantizer, until: int):
        if not isinstance(quantizer, VectorQuantizer):
            raise InputError(f"recipe: quantize_from is for a VectorQuantizer, got a {type(quantizer).__name__}")
        self.until, self.step = until, 0

    def __call__(
        self, quantizer: VectorQuantizer, inputs: tuple[Tensor], output: QuantizerOutput
    ) -> QuantizerOutput | None:
        if self.step >= self.until:
            return None
        latent = quantizer.normalise(inputs[0].float()).to(output.quantized.dtype)
        return output._replace(quantized=latent, losses={name: 0 * loss for name, loss in output.losses.items()})
