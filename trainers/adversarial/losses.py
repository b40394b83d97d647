"""Losses of discriminators and of the tokenizer against them, as plain functions of logits and features."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from zoo.quantizers.vector import is_distributed
from zoo.trainers.adversarial.discriminators.stack import Judgements


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """(mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2 (Lim and Ye 2017, arXiv 1705.02894, halved as by VQGAN)."""
    return (functional.relu(1 - real_logits).mean() + functional.relu(1 + fake_logits).mean()) / 2


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """-mean fake."""
    return -fake_logits.mean()


def clamped_hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """mean max(0, 1 - real) + mean max(0, 1 + fake), not halved (WavTokenizer, after Vocos)."""
    return 2 * hinge_discriminator_loss(real_logits, fake_logits)


def clamped_hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """mean max(0, 1 - fake): no loss from fakes that are clearly judged real already (WavTokenizer, after Vocos)."""
    return functional.relu(1 - fake_logits).mean()


def non_saturating_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-mean log sigmoid(real) - mean log(1 - sigmoid(fake)) (Goodfellow 2014, arXiv 1406.2661)."""
    return functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """-mean log sigmoid(fake) (Goodfellow 2014, arXiv 1406.2661)."""
    return functional.softplus(-fake_logits).mean()


def item_non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean over items of -log sigmoid(mean of the item's logits `[B, ...]`) (Open-MAGVIT2, IBQ, WeTok, VidTok)."""
    return functional.softplus(-fake_logits.flatten(1).mean(dim=1)).mean()


def least_squares_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """mean (real - 1)² + mean fake² (Mao 2016, arXiv 1611.04076)."""
    return (real_logits - 1).square().mean() + fake_logits.square().mean()


def least_squares_generator_loss(fake_logits: Tensor) -> Tensor:
    """mean (fake - 1)² (Mao 2016, arXiv 1611.04076)."""
    return (fake_logits - 1).square().mean()


# By name: the discriminator's loss of real and fake logits, and the tokenizer's loss of fake logits.
GAN_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
    "clamped_hinge": (clamped_hinge_discriminator_loss, clamped_hinge_generator_loss),
    "hinge_non_saturating": (hinge_discriminator_loss, item_non_saturating_generator_loss),
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
}


def feature_matching_loss(real: Judgements, fake: Judgements) -> Tensor:
    """Sum, over networks and their feature maps, of the mean absolute difference of the real and the fake map.

    It is divided neither by the number of networks nor by that of maps; no gradient goes to the real side.

    Args:
        real, fake: what one discriminator returned for originals and for reconstructions.
    """
    distances = (
        functional.l1_loss(fake_map, real_map.detach())
        for (_, real_features), (_, fake_features) in zip(real, fake, strict=True)
        for real_map, fake_map in zip(real_features, fake_features, strict=True)
    )
    return reduce(add, distances)


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor, limit: float) -> Tensor:
    """Factor that makes the adversarial gradient as large as the reconstruction's at the decoder's last layer.

    It is VQGAN's (arXiv 2012.09841): |g of reconstruction| / (|g of adversarial| + 1e-4), at most `limit`, with g the
    gradient with respect to `last_layer`, the weight of that layer. The graphs of both losses are kept.

    Returns:
        A scalar without a gradient.
    """
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction_loss, adversarial_loss)
    )
    return (ours / (theirs + 1e-4)).clamp(max=limit)


class LeCAM(nn.Module):
    """Penalty that keeps a discriminator's logits near their past (Tseng 2021, arXiv 2104.03310), as in Open-MAGVIT2.

    The buffers `real_mean` and `fake_mean` follow the mean logits of all processes, from 0. `forward(real, fake)`
    updates them and returns mean max(0, real - fake_mean)² + mean max(0, real_mean - fake)².

    Args:
        decay: decay of the two means, per call.
    """

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        means = torch.stack([real_logits.detach().float().mean(), fake_logits.detach().float().mean()])
        if is_distributed():
            distributed.all_reduce(means)
            means = means / distributed.get_world_size()
        for kept, mean in zip((self.real_mean, self.fake_mean), means, strict=True):
            kept.lerp_(mean, 1 - self.decay)
        return (
            functional.relu(real_logits - self.fake_mean).square().mean()
            + functional.relu(self.real_mean - fake_logits).square().mean()
        )


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Mean over items of the squared norm of the logits' gradient (Mescheder 2018, arXiv 1801.04406).

    The factor of one half that often goes with its weight is left out.

    Args:
        logits: `[B, ...]`, one network's logits of `real`; those of an item are summed.
        real: `[B, ...]`, originals with `requires_grad`, from which the logits were computed.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1).mean()
