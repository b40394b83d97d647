"""The discriminators of a run: what they add to the tokenizer's loss, and how they learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric, wrappers
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.tokenizer import Tokenizer
from zoo.trainers.adversarial import GAN_LOSSES, LeCAM, adaptive_weight, feature_matching_loss, r1_penalty
from zoo.trainers.discriminators import AUDIO_DISCRIMINATORS, IMAGE_DISCRIMINATORS
from zoo.trainers.optimizers import average_gradients, learning_rate, make_optimizer, set_learning_rate
from zoo.trainers.recipe import Recipe, check_keywords

ADAPTIVE_LIMIT = 1e4
Outputs = list[tuple[Tensor, list[Tensor]]]


class Discriminators(nn.Module):
    """Several families as one module.

    `forward(*signals)` takes signals as `scaled` gives them, and gives what each family says of each, by name.
    """

    def __init__(self, families: Mapping[str, nn.Module], modality: str):
        super().__init__()
        self.families = nn.ModuleDict(families)
        self.is_visual = modality in ("image", "video")

    def scaled(self, signal: Tensor) -> Tensor:
        """A signal in the public layout and range in that of the families: pictures in [-1, 1], sounds as they are."""
        return 2 * signal - 1 if self.is_visual else signal

    def forward(self, *signals: Tensor) -> list[dict[str, Outputs]]:
        return [{name: family(signal) for name, family in self.families.items()} for signal in signals]


class Adversary:
    """Discriminators, their optimizer and the running means of LeCAM.

    Every process has them whole, whatever Fabric's strategy does to the tokenizer, and averages their gradients with
    the others. Batch norms see what their own process has: on several the statistics are those of a part of the batch.

    Args:
        tokenizer: the one that is trained; `adaptive_weight` looks at the last layer of its decoder.
        recipe: one that has `adversarial`.

    Raises:
        InputError: a discriminator or a loss that there is not, an argument that it does not take, structures, or
            `adaptive_weight` where the last layer is frozen.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, tokenizer: Tokenizer):
        self.fabric, self.recipe, self.options = fabric, recipe, recipe.adversarial
        self.last_layer = [parameter for parameter in tokenizer.decoder.parameters() if parameter.ndim > 1][-1]
        if self.options.adaptive_weight and not self.last_layer.requires_grad:
            raise InputError("recipe: adversarial.adaptive_weight looks at the decoder's last layer, which is frozen")
        self.network = fabric.to_device(make_discriminators(recipe, tokenizer.spec.modality))
        self.lecam = fabric.to_device(nn.ModuleDict({name: LeCAM() for name in self.options.discriminators}))
        self.optimizer = make_optimizer(self.network, self.options.optimizer)

    def is_active(self, step: int) -> bool:
        """Whether the step with this number, the first being 0, is adversarial."""
        return step >= self.options.start_step

    def judge(
        self, reconstruction: Tensor, original: Tensor, reconstruction_loss: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What to add to the tokenizer's loss, and its terms by name, each a sum over the discriminators' networks."""
        discriminators, terms = self.options.discriminators, {}
        self.network.requires_grad_(False)
        (fake,) = self._judgements(self.network.scaled(reconstruction))
        if any(options.feature_matching for options in discriminators.values()):
            (real,) = self._judgements(self.network.scaled(original))
        self.network.requires_grad_(True)
        adversarial = judgements = matching = 0.0
        for name, options in discriminators.items():
            judgement = sum(GAN_LOSSES[options.loss][1](logits) for logits, _ in fake[name])
            terms[f"{name}_generator_loss"] = judgement
            judgements = judgements + judgement
            adversarial = adversarial + options.weight * judgement
            if options.feature_matching:
                distance = feature_matching_loss(real[name], fake[name])
                terms[f"{name}_feature_matching"] = distance
                matching = matching + options.feature_matching * distance
        if self.options.adaptive_weight:
            # Of what is not weighted yet: a weight in it would cancel.
            with autograd_beside_fabric():
                factor = adaptive_weight(reconstruction_loss, judgements, self.last_layer, ADAPTIVE_LIMIT)
            terms["adaptive_weight"] = factor
            adversarial = factor * adversarial
        return adversarial + matching, terms

    def learn(self, reconstruction: Tensor, original: Tensor) -> dict[str, Tensor]:
        """Add to the discriminators' gradient; terms by name."""
        reconstruction, original = (self.network.scaled(signal.detach()) for signal in (reconstruction, original))
        discriminators, terms, total = self.options.discriminators, {}, 0.0
        if any(options.r1 for options in discriminators.values()):
            original.requires_grad_()
        real, fake = self._judgements(original, reconstruction)
        for name, options in discriminators.items():
            pairs = [(ours, theirs) for (ours, _), (theirs, _) in zip(real[name], fake[name], strict=True)]
            loss = sum(GAN_LOSSES[options.loss][0](ours, theirs) for ours, theirs in pairs)
            terms[f"{name}_discriminator_loss"] = loss
            total = total + loss
            if options.lecam:
                ours, theirs = (torch.cat([logits.flatten() for logits in side]) for side in zip(*pairs, strict=True))
                terms[f"{name}_lecam"] = self.lecam[name](ours, theirs)
                total = total + options.lecam * terms[f"{name}_lecam"]
            if options.r1:
                terms[f"{name}_r1"] = sum(r1_penalty(ours, original) for ours, _ in pairs)
                total = total + options.r1 * terms[f"{name}_r1"]
        (total / self.recipe.accumulate).backward()
        return terms

    def advance(self, step: int) -> Tensor:
        """One step of the optimizer, that with this number; the norm of the gradient."""
        start = self.options.start_step
        rate = learning_rate(step - start, self.options.optimizer, self.recipe.steps - start)
        set_learning_rate(self.optimizer, rate)
        average_gradients(self.fabric, self.network.parameters())
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _judgements(self, *signals: Tensor) -> list[dict[str, Outputs]]:
        with self.fabric.autocast():
            judgements = self.network(*signals)
        return apply_to_collection(judgements, Tensor, Tensor.float)

    def state_dict(self) -> dict[str, Any]:
        """All that going on takes."""
        return {
            "discriminators": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lecam": self.lecam.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        self.network.load_state_dict(state["discriminators"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lecam.load_state_dict(state["lecam"])


@contextmanager
def autograd_beside_fabric() -> Iterator[None]:
    """Context in which autograd gives gradients through what a network of Fabric's gave.

    In mixed precision Fabric else refuses all that `fabric.backward` does not ask for, since a loss might have to be
    scaled; in bfloat16 none has to be. There is no public way to say so.
    """
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = False


def make_discriminators(recipe: Recipe, modality: str) -> Discriminators:
    """With random weights that the recipe's seed decides."""
    known = {"image": IMAGE_DISCRIMINATORS, "video": IMAGE_DISCRIMINATORS, "audio": AUDIO_DISCRIMINATORS}.get(modality)
    if known is None:
        raise InputError(f"recipe: there are no discriminators of a {modality}; leave adversarial out")
    families = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for name, options in recipe.adversarial.discriminators.items():
            prefix = f"adversarial.discriminators.{name}"
            if name not in known:
                raise InputError(f"recipe: unknown discriminator {name!r} of {modality}; there are {', '.join(known)}")
            if options.loss not in GAN_LOSSES:
                raise InputError(f"recipe: expected {prefix}.loss among {', '.join(GAN_LOSSES)}, got {options.loss!r}")
            maker: Any = known[name]
            cls = maker.func if isinstance(maker, partial) else maker
            families[name] = maker(**check_keywords(cls.__init__, options.arguments, f"{prefix}.arguments."))
    return Discriminators(families, modality)
