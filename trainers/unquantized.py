"""Training that begins without quantization."""

from __future__ import annotations

from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers import VectorQuantizer
from zoo.quantizers.base import Quantizer, QuantizerOutput


class Unquantized:
    """A forward hook of a quantizer that passes the latents themselves to the decoder in the first steps.

    A network whose untrained latents hardly depend on the signal learns to use only a few codes; without quantization
    it first learns to use its latents. Meanwhile the codebook follows the latents, and its losses count as 0. The
    trainer sets `step` to the number of the step before each step.

    Args:
        quantizer: a quantizer with one codebook of learned rows. until: the first step that is quantized.

    Raises:
        InputError: another quantizer.
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
