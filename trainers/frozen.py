"""Networks that never learn: published ones that losses look through, and parts of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.errors import InputError
from zoo.metrics.networks import Weights
from zoo.tokenizer import Tokenizer


class Frozen(nn.Module):
    """A network that moves between devices with its owner and else has no part in it.

    It stays in eval mode, its parameters are not those of the owner, and no checkpoint holds it; a gradient goes
    through it to what it is given.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = (network.eval().requires_grad_(False),)  # in a tuple, which hides it from its owner

    @property
    def network(self) -> nn.Module:
        return self._network[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def _apply(self, fn, recurse=True):
        self.network._apply(fn)
        return super()._apply(fn, recurse)


def require(weights: Weights, purpose: str, alternative: str | None = None) -> None:
    """InputError that names the file, where it is to be had and the alternative, unless it is there."""
    reason = weights.missing()
    if reason is not None:
        hint = "no network is used with random weights in its place" + (f"; {alternative}" if alternative else "")
        raise InputError(f"{purpose} {reason}; {hint}")


def freeze(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Take the modules of these dotted names out of training: no gradient, eval mode (no codebook moves, no dropout).

    Raises:
        InputError: a name that no module has, a part of the quantizer, or nothing left to train.
    """
    for name in names:
        try:
            module = tokenizer.get_submodule(name) if name else None
        except AttributeError:
            module = None
        if module is None:
            parts = ", ".join(part for part, _ in tokenizer.named_children())
            raise InputError(f"recipe: freeze: no module {name!r}; there are {parts} and what is in them")
        if name.startswith("quantizer."):
            raise InputError(f"recipe: freeze: expected the quantizer as a whole, got {name}")
        module.eval().requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in tokenizer.parameters()):
        raise InputError(f"recipe: freeze: nothing is left to train without {', '.join(names)}")
