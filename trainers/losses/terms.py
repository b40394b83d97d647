"""The terms of the tokenizer's loss, by the names that recipes use, and their weighted sum."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.trainers.frames import frames
from zoo.trainers.losses.perceptual import PERCEPTUAL_LOSSES
from zoo.trainers.losses.reconstruction import (
    bigcodec_mel_loss,
    convergence_loss,
    level_loss,
    mel_loss,
    multi_scale_mel_loss,
    psnr_loss,
    speechtokenizer_mel_loss,
    ssim_loss,
    stft_loss,
    stoi_loss,
)
from zoo.trainers.losses.structure import NEAR, distance_map, fape
from zoo.trainers.losses.teachers import RepresentationTerms

DECODES_NOTHING = "none, since it decodes to no signal"

Loss = Callable[[Tensor, Tensor], Tensor]
LossMaker = Callable[[TokenizerSpec], Loss]


def ssim_of_frames(reconstruction: Tensor, original: Tensor) -> Tensor:
    """`ssim_loss` of images, or of the frames of video."""
    return ssim_loss(frames(reconstruction), frames(original))


def fixed(loss: Loss) -> LossMaker:
    """The same loss for every tokenizer."""
    return lambda spec: loss


def without_spec(make: Callable[[], Loss]) -> LossMaker:
    """A loss that has to be made, but in the same way for every tokenizer."""
    return lambda spec: make()


def at_sample_rate(loss: Callable[..., Tensor]) -> LossMaker:
    """A loss at the tokenizer's sample rate."""
    return lambda spec: partial(loss, sample_rate=spec.sample_rate)


VISUAL_LOSSES: dict[str, LossMaker] = {
    "l1": fixed(functional.l1_loss),
    "l2": fixed(functional.mse_loss),
    "psnr": fixed(psnr_loss),
    "ssim": fixed(ssim_of_frames),
    **{name: without_spec(make) for name, make in PERCEPTUAL_LOSSES.items()},
}
# By modality and by the names that recipes use: a function that makes the loss for a tokenizer.
RECONSTRUCTION_LOSSES: dict[str, dict[str, LossMaker]] = {
    "image": VISUAL_LOSSES,
    "video": VISUAL_LOSSES,
    "audio": {
        "l1": fixed(functional.l1_loss),
        "l2": fixed(functional.mse_loss),
        "mel": at_sample_rate(mel_loss),
        "multi_scale_mel": at_sample_rate(multi_scale_mel_loss),
        "speechtokenizer_mel": at_sample_rate(speechtokenizer_mel_loss),
        "bigcodec_mel": at_sample_rate(bigcodec_mel_loss),
        "stft": fixed(stft_loss),
        "convergence": fixed(convergence_loss),
        "level": fixed(level_loss),
        "stoi": at_sample_rate(stoi_loss),
    },
    "structure": {
        "fape": fixed(fape),
        "unclamped_fape": fixed(partial(fape, clamp=None)),
        "distance_map": fixed(distance_map),
        "local_distance_map": fixed(partial(distance_map, within=NEAR)),
    },
}


def quantizer_losses(tokenizer: Tokenizer) -> list[str]:
    """Names of the losses that the tokenizer's quantizer returns in its current mode.

    The quantizer and the state of the random generators do not change.
    """
    quantizer = copy.deepcopy(tokenizer.quantizer)
    grid = tokenizer.spec.scales[-1] if tokenizer.spec.scales else (8,)
    latent = torch.zeros(2, *grid, quantizer.dim, device=tokenizer.device)
    with torch.random.fork_rng(), torch.no_grad():
        return list(quantizer(latent.normal_()).losses)


class WeightedLosses(nn.Module):
    """The terms of a recipe and their weighted sum.

    Args:
        tokenizer: in training mode; its modality and its quantizer decide which terms there are.
        weights: weight of each term by name: of `RECONSTRUCTION_LOSSES` or of the quantizer's own (such as
            `commitment_loss`; a frozen quantizer has none) or of its `decoder_losses`.
        representation: the terms of teachers; None: none.

    Raises:
        InputError: an unknown name (the message lists the known ones), a loss whose network's weights are missing, or
            no reconstruction loss; a semantic system without a decoder has no such loss, and needs teachers instead.
    """

    def __init__(
        self, tokenizer: Tokenizer, weights: Mapping[str, float], representation: RepresentationTerms | None = None
    ):
        super().__init__()
        spec, of_quantizer = tokenizer.spec, quantizer_losses(tokenizer)
        decodes = tokenizer.encode_only is None
        if not decodes and representation is None:
            raise InputError(f"recipe: {spec.name} decodes to no signal and so needs teachers to learn from, got none")
        known = RECONSTRUCTION_LOSSES[spec.modality] if decodes else {}
        of_decoder = tokenizer.decoder_losses
        for name in weights:
            if name not in known and name not in of_quantizer and name not in of_decoder:
                raise InputError(
                    f"recipe: unknown loss {name!r}; for {spec.modality}: {', '.join(known) or DECODES_NOTHING}; "
                    f"of the quantizer: {', '.join(of_quantizer) or 'none'}"
                    f"{'' if tokenizer.quantizer.training else ', it is frozen'}"
                    f"{'; of the decoder: ' if of_decoder else ''}{', '.join(of_decoder)}"
                )
        self.weights, self.of_quantizer = dict(weights), of_quantizer
        self.representation = representation
        self.terms = {name: make(spec) for name, make in known.items() if name in weights}
        self.networks = nn.ModuleList(term for term in self.terms.values() if isinstance(term, nn.Module))
        if decodes and not self.terms:
            raise InputError(
                f"recipe: expected a reconstruction loss ({', '.join(known)}), got {', '.join(weights) or 'none'}"
            )

    def forward(self, output: TokenizerOutput, original: Tensor) -> dict[str, Tensor]:
        """The unweighted terms by name, and their weighted sum as `loss`: float32 scalars.

        Args:
            output: of the tokenizer in training mode. original: signal `[B, ...]` in the public layout and range.
        """
        reconstruction, original = output.reconstruction.float(), original.float()
        values = {
            name: self.terms[name](reconstruction, original) if name in self.terms else output.losses[name]
            for name in self.weights
        }
        weights = self.weights
        if self.representation is not None:
            values |= self.representation(output, original)
            weights = weights | self.representation.weights
        return {"loss": reduce(add, (weight * values[name] for name, weight in weights.items())), **values}

    def of_reconstruction(self, values: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms that `forward` returned, without those of quantizer and teachers."""
        return reduce(add, (self.weights[name] * values[name] for name in self.terms))
