"""One step of training, and the state that a resumed run needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from zoo.errors import InputError, ZooError
from zoo.quantizers.base import Quantizer
from zoo.tokenizer import Tokenizer
from zoo.trainers.adversarial.adversary import Adversary
from zoo.trainers.building import create_tokenizer
from zoo.trainers.data.batches import to_signal
from zoo.trainers.data.signals import is_paired
from zoo.trainers.frozen import freeze
from zoo.trainers.losses.teachers import RepresentationTerms
from zoo.trainers.losses.terms import WeightedLosses
from zoo.trainers.optimizers import average_gradients, learning_rate, make_optimizer, set_learning_rate
from zoo.trainers.perturbation import LatentPerturbation
from zoo.trainers.recipe import Recipe
from zoo.trainers.sharding import (
    load_whole_optimizer_state,
    load_whole_state,
    sharded_root,
    whole_optimizer_state,
    whole_state,
)
from zoo.trainers.unquantized import Unquantized

NEVER = 2**62  # a step that no run has


@runtime_checkable
class DropsTail(Protocol):
    """A tokenizer that drops tail tokens in training while `drops_tail` is true."""

    drops_tail: bool


class Trainer:
    """Network, averaged network, discriminators, losses with their heads, optimizers, and the step they have reached.

    Every forward pass seeds torch's random generators from the recipe's seed and its own number, so that a resumed run
    draws the same numbers as an uninterrupted one.

    Args:
        fabric: launched, if it has several processes. tokenizer: as `create_tokenizer` returns it, or with other
            weights.

    Raises:
        InputError: a loss, discriminator, teacher, module to freeze or other option that the tokenizer cannot have.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, tokenizer: Tokenizer):
        self.fabric, self.recipe = fabric, recipe
        if recipe.tail_drop_from and not isinstance(tokenizer, DropsTail):
            raise InputError(f"recipe: tail_drop_from is for tokenizers that drop tail tokens, got {recipe.tokenizer}")
        if recipe.adversarial and tokenizer.encode_only is not None:
            raise InputError(f"recipe: adversarial is for tokenizers that decode to a signal, got {recipe.tokenizer}")
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.tokenizer = tokenizer
        freeze(tokenizer.train(), recipe.freeze)
        representation = RepresentationTerms(tokenizer, recipe) if recipe.teachers else None
        self.losses = WeightedLosses(tokenizer, recipe.losses, representation)
        fabric.to_device(self.losses)
        fabric.to_device(tokenizer)
        averaged = copy.deepcopy(tokenizer).eval().requires_grad_(False)
        self.adversary = Adversary(fabric, recipe, recipe.adversarial, tokenizer) if recipe.adversarial else None
        self._hooks = quantizer_hooks(tokenizer.quantizer, recipe)
        for hook in self._hooks:
            tokenizer.quantizer.register_forward_hook(hook)
        if recipe.compile:
            # Not the whole tokenizer: its checks of the input and a quantizer's counting have to run in Python.
            tokenizer.encoder.compile()
            tokenizer.decoder.compile()
        optimizer = make_optimizer(nn.ModuleList([tokenizer, self.losses]), recipe.optimizer)
        self.network, self.optimizer = fabric.setup(tokenizer, optimizer)
        self._is_sharded = sharded_root(self.network) is not None
        if recipe.teachers and self._is_sharded:
            raise InputError("recipe: teachers do not go with the strategy fsdp, which shards only the tokenizer")
        # If no process has the whole network, none can have the whole average.
        self._averaged: nn.Module = fabric.setup_module(averaged) if self._is_sharded else averaged
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._diverged: dict[str, Tensor] = {}

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def advance(self, batches: Iterator[Tensor]) -> None:
        """Take one step of each optimizer, with the next of `batches` for each forward pass."""
        recipe = self.recipe
        set_learning_rate(self.optimizer, learning_rate(self.step, recipe.optimizer, recipe.steps))
        adversary = self.adversary if self.adversary and self.adversary.is_active(self.step) else None
        discriminators_first = adversary is not None and adversary.options.first == "discriminator"
        for hook in self._hooks:
            hook.step = self.step
        if recipe.tail_drop_from:
            assert isinstance(self.tokenizer, DropsTail)
            self.tokenizer.drops_tail = self.step >= recipe.tail_drop_from
        for number in range(recipe.accumulate):
            original = given = to_signal(next(batches))
            if is_paired(recipe.data):
                original, given = original.chunk(2, dim=1)
            self._seed(number)
            with self.fabric.no_backward_sync(self.network, enabled=number + 1 < recipe.accumulate):
                output = self.network(given)
                original = self.tokenizer.modality.target(original, self.tokenizer.spec)
                if adversary and discriminators_first:
                    self._add_losses(adversary.learn(output.reconstruction, original))
                    self._watch("the discriminators' gradient", adversary.advance(self.step))
                values = self.losses(output, original)
                if adversary:
                    reconstruction_loss = self.losses.of_reconstruction(values)
                    loss, terms = adversary.judge(output.reconstruction, original, reconstruction_loss)
                    values = {**values, **terms, "loss": values["loss"] + loss}
                self.fabric.backward(values["loss"] / recipe.accumulate)
            self._add_losses(values)
            if adversary and not discriminators_first:
                self._add_losses(adversary.learn(output.reconstruction, original))
        # Fabric averages those of the network.
        average_gradients(self.fabric, self.losses.parameters())
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=recipe.optimizer.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None  # with max_norm there is one
        self._watch("the gradient", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if adversary and not discriminators_first:
            self._watch("the discriminators' gradient", adversary.advance(self.step))
        self.step += 1
        # At first the average follows fast, so that it soon forgets the initial weights.
        self._average(min(recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step)))

    def _seed(self, number: int) -> None:
        # Called after the loader, which may draw random numbers too.
        key = np.random.SeedSequence((self.recipe.seed, self.step, number, self.fabric.global_rank))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        averaged, current = list(self._averaged.parameters()), list(self.network.parameters())
        get_ema_multi_avg_fn(decay)(averaged, current, None)
        for ours, theirs in zip(self._averaged.buffers(), self.network.buffers(), strict=True):
            ours.copy_(theirs)

    def _add_losses(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()
            self._watch(name, value)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def mean_losses(self) -> dict[str, float]:
        """Losses by name: means over the passes since the last call and over processes, all of which must call this.

        Raises:
            ZooError: as in `check_finite`.
        """
        self.check_finite()
        means = {name: float(value) / self._counts[name] for name, value in self._reduced_sums().items()}
        self._sums, self._counts = {}, {}
        return means

    def _reduced_sums(self) -> dict[str, Tensor]:
        if not self._sums:
            return {}
        sums = self.fabric.all_reduce(torch.stack(list(self._sums.values())), reduce_op="mean")
        assert isinstance(sums, Tensor)
        return dict(zip(self._sums, sums, strict=True))

    def _watch(self, name: str, value: Tensor) -> None:
        # Keep the first step, counted from 1, at which it was not finite; on the device, so that nothing waits for it.
        first = self._diverged.get(name)
        if first is None:
            first = torch.full((), NEVER, device=value.device)
        self._diverged[name] = torch.where(value.isfinite(), first, first.clamp(max=self.step + 1))

    def divergence(self) -> ZooError | None:
        """The error that names what was not finite first on this process, and the step; None: all was finite."""
        steps = {name: int(step) for name, step in self._diverged.items()}
        first = min(steps.values(), default=NEVER)
        if first == NEVER:
            return None
        names = [name for name, step in steps.items() if step == first]
        # What is computed from a term is not finite either.
        terms = [name for name in names if name != "loss" and not name.startswith("the ")] or names
        return ZooError(
            f"training diverged at step {first}: {', '.join(terms)} {'is' if len(terms) == 1 else 'are'} not finite; "
            "a lower optimizer.learning_rate, a smaller optimizer.clip_norm or weight of the term, or "
            "precision=32-true may help; the last checkpoint is kept"
        )

    def check_finite(self) -> None:
        """Check that all losses and gradients so far were finite on all processes; every process must call this.

        Raises:
            ZooError: one was not; the message has its name and step.
        """
        error = self.divergence()
        diverged = self.fabric.all_reduce(
            torch.tensor(float(error is not None), device=self.fabric.device), reduce_op="sum"
        )
        assert isinstance(diverged, Tensor)
        if error is not None or diverged > 0:
            raise error or ZooError(f"training diverged at or before step {self.step} on another process")

    def averaged(self) -> Tokenizer:
        """The averaged network, in eval mode; every process must call this."""
        if isinstance(self._averaged, Tokenizer):
            return self._averaged
        tokenizer = create_tokenizer(self.recipe).eval()
        tokenizer.load_state_dict(whole_state(self._averaged))
        self.fabric.to_device(tokenizer)
        return tokenizer

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs at this step; every process must call this."""
        state = {
            "step": self.step,
            "best": self.best,
            "sums": self._reduced_sums(),
            "counts": dict(self._counts),
            "tokenizer": whole_state(self.network),
            "averaged": whole_state(self._averaged),
            "optimizer": whole_optimizer_state(self.network, self.optimizer.optimizer),
        }
        if self.recipe.teachers:
            state["heads"] = self.losses.state_dict()
        if self.adversary:
            state["adversary"] = self.adversary.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned; every process must call this."""
        load_whole_state(self.network, state["tokenizer"])
        load_whole_state(self._averaged, state["averaged"])
        load_whole_optimizer_state(self.network, self.optimizer.optimizer, state["optimizer"])
        if self.recipe.teachers:
            self.losses.load_state_dict(state["heads"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self.step, self.best = state["step"], state["best"]
        self._sums = {name: value.to(self.fabric.device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])


def quantizer_hooks(quantizer: Quantizer, recipe: Recipe) -> list[LatentPerturbation | Unquantized]:
    """The forward hooks that a recipe asks for, in the order in which they are called."""
    hooks: list[LatentPerturbation | Unquantized] = []
    if recipe.perturbation:
        hooks.append(LatentPerturbation(quantizer, recipe.perturbation))
    if recipe.quantize_from:
        hooks.append(Unquantized(quantizer, recipe.quantize_from))
    return hooks
