"""The discriminators of a run: their terms in the tokenizer's loss, and their own steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from lightning_fabric import Fabric, wrappers
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.tokenizer import Tokenizer
from zoo.trainers.adversarial.discriminators import DISCRIMINATORS_OF
from zoo.trainers.adversarial.discriminators.stack import Judgements
from zoo.trainers.adversarial.losses import GAN_LOSSES, LeCAM, adaptive_weight, feature_matching_loss, r1_penalty
from zoo.trainers.conversion import keywords_of
from zoo.trainers.data.options import VisualData
from zoo.trainers.optimizers import average_gradients, learning_rate, make_optimizer, set_learning_rate
from zoo.trainers.recipe import Adversarial, Recipe

ADAPTIVE_LIMIT = 1e4


class Discriminators(nn.Module):
    """Several discriminators as one module.

    `forward(*signals)` takes signals that `scaled` returned and returns, for each, the judgements by discriminator.

    Args:
        discriminators: networks by name. is_visual: whether they judge images or video.
    """

    def __init__(self, discriminators: Mapping[str, nn.Module], *, is_visual: bool):
        super().__init__()
        self.families = nn.ModuleDict(discriminators)  # the name in the checkpoints of runs
        self.is_visual = is_visual

    def scaled(self, signal: Tensor) -> Tensor:
        """Scale a signal from the public range to the discriminators': [-1, 1] for images; audio is unchanged."""
        return 2 * signal - 1 if self.is_visual else signal

    def forward(self, *signals: Tensor) -> list[dict[str, Judgements]]:
        return [{name: network(signal) for name, network in self.families.items()} for signal in signals]


class Adversary:
    """Discriminators, their optimizer and the running means of LeCAM.

    Every process has all of the discriminators, whatever Fabric's strategy does with the tokenizer, and averages their
    gradients over processes. A batch norm's statistics are those of its own process's part of the batch.

    Args:
        tokenizer: the one that is trained; `adaptive_weight` uses the last layer of its decoder.
        options: the recipe's `adversarial`.

    Raises:
        InputError: an unknown discriminator or loss, an argument that a discriminator does not take, a modality without
            discriminators, or `adaptive_weight` with a last layer that is frozen.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, options: Adversarial, tokenizer: Tokenizer):
        self.fabric, self.recipe, self.options = fabric, recipe, options
        self.last_layer = [parameter for parameter in tokenizer.decoder.parameters() if parameter.ndim > 1][-1]
        if options.adaptive_weight and not self.last_layer.requires_grad:
            raise InputError("recipe: adversarial.adaptive_weight uses the decoder's last layer, which is frozen")
        self.network = make_discriminators(recipe, options)
        self.lecam = nn.ModuleDict({name: LeCAM() for name in options.discriminators})
        for module in (self.network, self.lecam):
            fabric.to_device(module)
        self.optimizer = make_optimizer(self.network, options.optimizer)

    def is_active(self, step: int) -> bool:
        """Whether the step with this number, counted from 0, is adversarial."""
        return step >= self.options.start_step

    def judge(
        self, reconstruction: Tensor, original: Tensor, reconstruction_loss: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is added to the tokenizer's loss, and its terms by name, each summed over networks."""
        discriminators = self.options.discriminators
        self.network.requires_grad_(False)
        (fake,) = self._judgements(self.network.scaled(reconstruction))
        if any(options.feature_matching for options in discriminators.values()):
            (real,) = self._judgements(self.network.scaled(original))
        self.network.requires_grad_(True)
        terms: dict[str, Tensor] = {}
        judgements, weighted, matching = [], [], []
        for name, options in discriminators.items():
            judgement = reduce(add, (GAN_LOSSES[options.loss][1](logits) for logits, _ in fake[name]))
            terms[f"{name}_generator_loss"] = judgement
            judgements.append(judgement)
            weighted.append(options.weight * judgement)
            if options.feature_matching:
                distance = feature_matching_loss(real[name], fake[name])
                terms[f"{name}_feature_matching"] = distance
                matching.append(options.feature_matching * distance)
        adversarial = reduce(add, weighted)
        if self.options.adaptive_weight:
            # Computed from the judgements without their weights: a weight would cancel.
            with autograd_beside_fabric():
                factor = adaptive_weight(reconstruction_loss, reduce(add, judgements), self.last_layer, ADAPTIVE_LIMIT)
            terms["adaptive_weight"] = factor
            adversarial = factor * adversarial
        return adversarial + reduce(add, matching) if matching else adversarial, terms

    def learn(self, reconstruction: Tensor, original: Tensor) -> dict[str, Tensor]:
        """Add to the discriminators' gradients, and return the terms of their loss by name."""
        reconstruction, original = (self.network.scaled(signal.detach()) for signal in (reconstruction, original))
        discriminators = self.options.discriminators
        if any(options.r1 for options in discriminators.values()):
            original.requires_grad_()
        real, fake = self._judgements(original, reconstruction)
        terms: dict[str, Tensor] = {}
        weighted = []
        for name, options in discriminators.items():
            pairs = [(ours, theirs) for (ours, _), (theirs, _) in zip(real[name], fake[name], strict=True)]
            loss = reduce(add, (GAN_LOSSES[options.loss][0](ours, theirs) for ours, theirs in pairs))
            terms[f"{name}_discriminator_loss"] = loss
            weighted.append(loss)
            if options.lecam:
                ours, theirs = (torch.cat([logits.flatten() for logits in side]) for side in zip(*pairs, strict=True))
                terms[f"{name}_lecam"] = self.lecam[name](ours, theirs)
                weighted.append(options.lecam * terms[f"{name}_lecam"])
            if options.r1:
                terms[f"{name}_r1"] = reduce(add, (r1_penalty(ours, original) for ours, _ in pairs))
                weighted.append(options.r1 * terms[f"{name}_r1"])
        (reduce(add, weighted) / self.recipe.accumulate).backward()
        return terms

    def advance(self, step: int) -> Tensor:
        """Take the optimizer's step with this number, counted from 0, and return the norm of the gradient."""
        start = self.options.start_step
        rate = learning_rate(step - start, self.options.optimizer, self.recipe.steps - start)
        set_learning_rate(self.optimizer, rate)
        average_gradients(self.fabric, self.network.parameters())
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _judgements(self, *signals: Tensor) -> list[dict[str, Judgements]]:
        # Judgements are in float32, whatever the precision of the networks.
        with self.fabric.autocast():
            of_signals = self.network(*signals)
        return [
            {
                name: [(logits.float(), [feature.float() for feature in features]) for logits, features in judgements]
                for name, judgements in of_signal.items()
            }
            for of_signal in of_signals
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "discriminators": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lecam": self.lecam.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.network.load_state_dict(state["discriminators"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lecam.load_state_dict(state["lecam"])


@contextmanager
def autograd_beside_fabric() -> Iterator[None]:
    """Context in which autograd may compute gradients through the output of a network that Fabric has set up.

    In mixed precision Fabric refuses every gradient that `fabric.backward` does not compute, since a loss might have to
    be scaled; in bfloat16 no loss is scaled. There is no public way to tell Fabric so.
    """
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = False


def make_discriminators(recipe: Recipe, options: Adversarial) -> Discriminators:
    """The discriminators of a recipe's `adversarial`, with random weights that the recipe's seed decides."""
    known = DISCRIMINATORS_OF[type(recipe.data)]
    if not known:
        raise InputError(f"recipe: there are no discriminators for {recipe.tokenizer}; leave adversarial out")
    networks = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for name, chosen in options.discriminators.items():
            prefix = f"adversarial.discriminators.{name}"
            if name not in known:
                raise InputError(
                    f"recipe: unknown discriminator {name!r} for {recipe.tokenizer}; there are {', '.join(known)}"
                )
            if chosen.loss not in GAN_LOSSES:
                raise InputError(f"recipe: expected {prefix}.loss among {', '.join(GAN_LOSSES)}, got {chosen.loss!r}")
            maker: Any = known[name]
            cls = maker.func if isinstance(maker, partial) else maker
            networks[name] = maker(**keywords_of(cls.__init__, chosen.arguments, f"{prefix}.arguments."))
    return Discriminators(networks, is_visual=isinstance(recipe.data, VisualData))
