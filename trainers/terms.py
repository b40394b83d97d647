"""The terms that recipes weigh by name, and their weighted sum."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.trainers.discriminators.image import frames
from zoo.trainers.losses import (
    Loss,
    convergence_loss,
    mel_loss,
    multi_scale_mel_loss,
    ssim_loss,
    stft_loss,
    stoi_loss,
)
from zoo.trainers.perceptual import PERCEPTUAL_LOSSES
from zoo.trainers.representation import RepresentationTerms
from zoo.trainers.structure_losses import NEAR, distance_map, fape


def reconstruction_losses(spec: TokenizerSpec) -> dict[str, Loss]:
    """The losses by the names that recipes use, without those of `PERCEPTUAL_LOSSES`."""
    if spec.modality == "structure":
        return {
            "fape": fape,
            "unclamped_fape": partial(fape, clamp=None),
            "distance_map": distance_map,
            "local_distance_map": partial(distance_map, within=NEAR),
        }
    losses = {"l1": F.l1_loss, "l2": F.mse_loss}
    if spec.modality != "audio":
        return {**losses, "ssim": _ssim_of_frames}
    return {
        **losses,
        "mel": partial(mel_loss, sample_rate=spec.sample_rate),
        "multi_scale_mel": partial(multi_scale_mel_loss, sample_rate=spec.sample_rate),
        "stft": stft_loss,
        "convergence": convergence_loss,
        "stoi": partial(stoi_loss, sample_rate=spec.sample_rate),
    }


def _ssim_of_frames(reconstruction: Tensor, original: Tensor) -> Tensor:
    return ssim_loss(frames(reconstruction), frames(original))


def quantizer_losses(tokenizer: Tokenizer) -> list[str]:
    """Names of the terms that the tokenizer's quantizer gives in its mode. Neither it nor the random state moves."""
    quantizer = copy.deepcopy(tokenizer.quantizer)
    latent = torch.zeros(2, 8, quantizer.dim, device=tokenizer.device)
    with torch.random.fork_rng(), torch.no_grad():
        return list(quantizer(latent.normal_()).losses)


class WeightedLosses(nn.Module):
    """The terms of a recipe and their weighted sum.

    Args:
        tokenizer: in training mode, whose modality and quantizer decide which terms there are.
        weights: by name, of `reconstruction_losses`, `PERCEPTUAL_LOSSES` or the quantizer's own (such as
            `commitment_loss`; one that is frozen has none).
        representation: more terms; None: none.

    Raises:
        InputError: a name that is neither (the message lists those there are), no reconstruction loss, or one whose
            network's weights are missing.
    """

    def __init__(
        self, tokenizer: Tokenizer, weights: Mapping[str, float], representation: RepresentationTerms | None = None
    ):
        super().__init__()
        ready, of_quantizer = reconstruction_losses(tokenizer.spec), quantizer_losses(tokenizer)
        perceptual = PERCEPTUAL_LOSSES if tokenizer.spec.modality in ("image", "video") else {}
        known = [*ready, *perceptual]
        for name in weights:
            if name not in known and name not in of_quantizer:
                raise InputError(
                    f"recipe: unknown loss {name!r}; for {tokenizer.spec.modality}: {', '.join(known)}; "
                    f"of the quantizer: {', '.join(of_quantizer) or 'none'}"
                    f"{'' if tokenizer.quantizer.training else ', it is frozen'}"
                )
        self.weights, self.of_quantizer = dict(weights), of_quantizer
        self.representation = representation
        self.terms = {name: ready[name] if name in ready else perceptual[name]() for name in known if name in weights}
        self.networks = nn.ModuleList(term for term in self.terms.values() if isinstance(term, nn.Module))
        if not self.terms:
            raise InputError(
                f"recipe: expected a reconstruction loss ({', '.join(known)}), got {', '.join(weights) or 'none'}"
            )

    def forward(self, output: TokenizerOutput, original: Tensor) -> dict[str, Tensor]:
        """Unweighted terms by name, and as `loss` their weighted sum; float32 scalars."""
        reconstruction, original = output.reconstruction.float(), original.float()
        values = {
            name: self.terms[name](reconstruction, original) if name in self.terms else output.losses[name]
            for name in self.weights
        }
        weights = self.weights
        if self.representation is not None:
            values |= self.representation(output, original)
            weights = weights | self.representation.weights
        return {"loss": sum(weight * values[name] for name, weight in weights.items()), **values}

    def of_reconstruction(self, values: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum without the terms of quantizer and teachers, of what `forward` gave."""
        return sum(self.weights[name] * values[name] for name in self.terms)
