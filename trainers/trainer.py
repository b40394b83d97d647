"""One step of training, and the state that it leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from zoo.errors import InputError, ZooError
from zoo.tokenizer import Tokenizer
from zoo.trainers.adversary import Adversary
from zoo.trainers.data import is_paired, to_signal
from zoo.trainers.frozen import freeze
from zoo.trainers.optimizers import average_gradients, learning_rate, make_optimizer, set_learning_rate
from zoo.trainers.perturbation import LatentPerturbation
from zoo.trainers.recipe import Recipe, create_tokenizer
from zoo.trainers.representation import RepresentationTerms
from zoo.trainers.sharding import (
    is_sharded,
    load_whole_optimizer_state,
    load_whole_state,
    whole_optimizer_state,
    whole_state,
)
from zoo.trainers.terms import WeightedLosses
from zoo.trainers.unquantized import Unquantized


class Trainer:
    """Network, averaged network, discriminators, losses with their heads, optimizers, and the step they have reached.

    Every forward pass seeds torch's random generators from the recipe's seed and its own number: a resumed run draws
    what an uninterrupted one would have drawn.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, tokenizer: Tokenizer):
        self.fabric, self.recipe = fabric, recipe
        if recipe.tail_drop_from and not hasattr(tokenizer, "drops_tail"):
            raise InputError(f"recipe: tail_drop_from is for tokenizers that drop tail tokens, got {recipe.tokenizer}")
        self.step = 0
        self.best: dict[str, Any] | None = None
        freeze(tokenizer.train(), recipe.freeze)
        representation = RepresentationTerms(tokenizer, recipe) if recipe.teachers else None
        self.losses = fabric.to_device(WeightedLosses(tokenizer, recipe.losses, representation))
        self.tokenizer = fabric.to_device(tokenizer)
        averaged = copy.deepcopy(self.tokenizer).eval().requires_grad_(False)
        self.adversary = Adversary(fabric, recipe, self.tokenizer) if recipe.adversarial else None
        quantizer, self._hooks = self.tokenizer.quantizer, []
        if recipe.perturbation:
            self._hooks.append(LatentPerturbation(quantizer, recipe.perturbation))
        if recipe.quantize_from:
            self._hooks.append(Unquantized(quantizer, recipe.quantize_from))
        for hook in self._hooks:
            quantizer.register_forward_hook(hook)
        if recipe.compile:
            # Not the whole: its checks of the input and what a quantizer counts are Python's to decide.
            self.tokenizer.encoder.compile()
            self.tokenizer.decoder.compile()
        optimizer = make_optimizer(nn.ModuleList([self.tokenizer, self.losses]), recipe.optimizer)
        self.network, self.optimizer = fabric.setup(self.tokenizer, optimizer)
        if recipe.teachers and is_sharded(self.network):
            raise InputError("recipe: teachers do not go with the strategy fsdp, which spreads the tokenizer alone")
        # An averaged network that no process has whole must be spread as the network is.
        self._averaged = fabric.setup_module(averaged) if is_sharded(self.network) else averaged
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._finite = torch.ones((), dtype=torch.bool, device=fabric.device)

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def advance(self, batches: Iterator[Tensor]) -> None:
        """One step of each optimizer."""
        recipe = self.recipe
        set_learning_rate(self.optimizer, learning_rate(self.step, recipe.optimizer, recipe.steps))
        adversary = self.adversary if self.adversary and self.adversary.is_active(self.step) else None
        for hook in self._hooks:
            hook.step = self.step
        if recipe.tail_drop_from:
            self.tokenizer.drops_tail = self.step >= recipe.tail_drop_from
        discriminators_first = adversary is not None and recipe.adversarial.first == "discriminator"
        for number in range(recipe.accumulate):
            original = given = to_signal(next(batches))
            if is_paired(recipe.data):
                original, given = original.chunk(2, dim=1)
            self._seed(number)
            with self.fabric.no_backward_sync(self.network, enabled=number + 1 < recipe.accumulate):
                output = self.network(given)
                if discriminators_first:
                    self._add_losses(adversary.learn(output.reconstruction, original))
                    self._finite &= adversary.advance(self.step).isfinite()
                values = self.losses(output, original)
                if adversary:
                    reconstruction_loss = self.losses.of_reconstruction(values)
                    loss, terms = adversary.judge(output.reconstruction, original, reconstruction_loss)
                    values = {**values, **terms, "loss": values["loss"] + loss}
                self.fabric.backward(values["loss"] / recipe.accumulate)
            self._add_losses(values)
            if adversary and not discriminators_first:
                self._add_losses(adversary.learn(output.reconstruction, original))
        # Fabric does so for the network.
        average_gradients(self.fabric, self.losses.parameters())
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=recipe.optimizer.clip_norm, error_if_nonfinite=False
        )
        self._finite &= norm.isfinite()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if adversary and not discriminators_first:
            self._finite &= adversary.advance(self.step).isfinite()
        self.step += 1
        # Early on the average follows fast, so that it is not one of the random start.
        self._average(min(recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step)))

    def _seed(self, number: int) -> None:
        # Behind the loader, which may draw too.
        key = np.random.SeedSequence((self.recipe.seed, self.step, number, self.fabric.global_rank))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        averaged, current = list(self._averaged.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for ours, theirs in zip(self._averaged.buffers(), self.network.buffers(), strict=True):
            ours.copy_(theirs)

    def _add_losses(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def mean_losses(self) -> dict[str, float]:
        """Losses by name, averaged over the passes since the last call and over processes, all of which must call this.

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
        return dict(zip(self._sums, sums, strict=True))

    def check_finite(self) -> None:
        """ZooError if a gradient of any step so far was not finite."""
        if not self._finite:
            values = ", ".join(f"{name} {float(value):.3g}" for name, value in self._sums.items())
            raise ZooError(
                f"training diverged at or before step {self.step}: a gradient is not finite ({values}); "
                "a lower optimizer.learning_rate or precision=32-true may help; the last checkpoint is kept"
            )

    def averaged(self) -> Tokenizer:
        """The averaged network, in eval mode; every process must call this."""
        if not is_sharded(self._averaged):
            return self._averaged
        tokenizer = create_tokenizer(self.recipe)
        tokenizer.load_state_dict(whole_state(self._averaged))
        return self.fabric.to_device(tokenizer.eval())

    def state_dict(self) -> dict[str, Any]:
        """All that going on at this step takes; every process must call this."""
        state = {
            "step": self.step,
            "best": self.best,
            "sums": self._reduced_sums(),
            "counts": dict(self._counts),
            "tokenizer": whole_state(self.network),
            "averaged": whole_state(self._averaged),
            "optimizer": whole_optimizer_state(self.network, self.optimizer),
        }
        if self.recipe.teachers:
            state["heads"] = self.losses.state_dict()
        if self.adversary:
            state["adversary"] = self.adversary.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called; every process must."""
        load_whole_state(self.network, state["tokenizer"])
        load_whole_state(self._averaged, state["averaged"])
        load_whole_optimizer_state(self.network, self.optimizer, state["optimizer"])
        if self.recipe.teachers:
            self.losses.load_state_dict(state["heads"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self.step, self.best = state["step"], state["best"]
        self._sums = {name: value.to(self.fabric.device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])
