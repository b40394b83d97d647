"""Training that begins without anything lost between encoder and decoder."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers import VectorQuantizer
from zoo.quantizers.base import QuantizerOutput
from zoo.tokenizer import Tokenizer


class Unquantized:
    """A forward hook of a tokenizer's quantizer that, before a step, lets the decoder have the latents themselves.

    Networks whose untrained latents hardly depend on the signal learn to use a few codes at most; with nothing lost
    they first learn to use the latents. The codebook follows the latents meanwhile, and none of its losses counts; nor
    does a tokenizer with `drops_tail` drop one. `at_step` says how far training is.

    Args:
        tokenizer: whose quantizer has one codebook of learned rows. InputError for another.
        until: the first step that is quantized.
    """

    def __init__(self, tokenizer: Tokenizer, until: int):
        if not isinstance(tokenizer.quantizer, VectorQuantizer):
            got = type(tokenizer.quantizer).__name__
            raise InputError(f"recipe: quantize_from is for a VectorQuantizer, got a {got}")
        self.tokenizer, self.until, self.is_over = tokenizer, until, False

    def at_step(self, step: int) -> None:
        self.is_over = step >= self.until
        if self.tokenizer.spec.tail_drop:
            self.tokenizer.drops_tail = self.is_over

    def __call__(self, quantizer: VectorQuantizer, inputs: tuple[Tensor], output: QuantizerOutput) -> QuantizerOutput:
        if self.is_over:
            return output
        latent = inputs[0]
        if quantizer.distance == "cosine":
            latent = functional.normalize(latent.float(), dim=-1).to(latent.dtype)
        return output._replace(quantized=latent, losses={name: 0 * loss for name, loss in output.losses.items()})
