"""Codes that are perturbed in training, so that the decoder bears those that a generator samples wrongly."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics.perturbation import perturb_codes
from zoo.quantizers import VectorQuantizer
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.trainers.recipe import Perturbation


class LatentPerturbation:
    """A forward hook of a quantizer that replaces some of the vectors by near ones (RobusTok, arXiv 2503.08354).

    As its released code (lxa9867/ImageFolder at 76ddfb9a) has it: behind the quantizer's losses and codes, which know
    nothing of it; near to the encoder's vector, not to its code; the gradient passes straight through. `step` says how
    far training is.

    Args:
        quantizer: with one codebook of learned rows. InputError for another.
        options: of the recipe.
    """

    def __init__(self, quantizer: Quantizer, options: Perturbation):
        if not isinstance(quantizer, VectorQuantizer):
            raise InputError(f"recipe: perturbation is for a VectorQuantizer, got a {type(quantizer).__name__}")
        self.options, self.step = options, 0

    @property
    def factor(self) -> float:
        """Of `alpha` and `delta` at this step."""
        if self.options.anneal is None:
            return 1.0
        start, end = self.options.anneal
        done = min(max((self.step - start) / (end - start), 0.0), 1.0)
        return 1 - (1 - self.options.final_factor) * done

    def __call__(self, quantizer: VectorQuantizer, inputs: tuple[Tensor], output: QuantizerOutput) -> QuantizerOutput:
        options, quantized, codes = self.options, output.quantized, output.codes.movedim(-1, 1)
        with without_autocast(quantized), torch.no_grad():
            perturbed = perturb_codes(
                codes,
                [quantizer.rows()],
                alpha=self.factor * options.alpha,
                delta=max(1, int(self.factor * options.delta)),
                beta=options.beta,
                latents=[quantizer.normalise(inputs[0].float())],
            )
            # Only what is replaced: an EMA codebook has moved on since its rows were taken.
            changed = (perturbed != codes).movedim(1, -1)
            rows = quantizer.lookup(perturbed[:, 0]).to(quantized.dtype)
            values = torch.where(changed, rows, quantized)
        return output._replace(quantized=straight_through(quantized, values))
