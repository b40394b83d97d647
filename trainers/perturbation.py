"""Perturbation of codes in training, so that the decoder learns to tolerate wrong codes of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics.perturbation import perturb_codes
from zoo.quantizers import VectorQuantizer
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.trainers.recipe import Perturbation


class LatentPerturbation:
    """A forward hook of a quantizer that replaces some of the vectors by nearby ones (RobusTok, arXiv 2503.08354).

    As in its released code (lxa9867/ImageFolder at 76ddfb9a): the quantizer's losses and codes are those before the
    replacement; nearness is measured from the encoder's vector, not from its code; the gradient passes straight
    through. The trainer sets `step` to the number of the step before each step.

    Args:
        quantizer: a quantizer with one codebook of learned rows. options: the recipe's `perturbation`.

    Raises:
        InputError: another quantizer.
    """

    def __init__(self, quantizer: Quantizer, options: Perturbation):
        if not isinstance(quantizer, VectorQuantizer):
            raise InputError(f"recipe: perturbation is for a VectorQuantizer, got a {type(quantizer).__name__}")
        self.options, self.step = options, 0

    @property
    def factor(self) -> float:
        """Factor of `alpha` and `delta` at this step."""
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
            # The others are kept, not looked up again, since an EMA codebook has changed meanwhile.
            changed = (perturbed != codes).movedim(1, -1)
            rows = quantizer.lookup(perturbed[:, 0]).to(quantized.dtype)
            values = torch.where(changed, rows, quantized)
        return output._replace(quantized=straight_through(quantized, values))
