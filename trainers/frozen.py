"""Networks that are not trained: published ones that losses use, and parts of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar

from torch import Tensor, nn

from zoo.errors import InputError
from zoo.metrics.networks import Weights
from zoo.tokenizer import Tokenizer

Network = TypeVar("Network", bound=nn.Module)
Loaded = TypeVar("Loaded")


class Frozen(nn.Module, Generic[Network]):
    """A frozen network inside another module, its owner, which it follows between devices and data types.

    It stays in eval mode. The owner's parameters do not include its parameters, nor the owner's state dict its tensors.
    A gradient goes through it to its input.
    """

    def __init__(self, network: Network):
        super().__init__()
        self._network = (network.eval().requires_grad_(False),)  # in a tuple, which hides it from its owner

    @property
    def network(self) -> Network:
        return self._network[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What torch calls to move or convert a module: `to`, `cuda` and `half` all come here.
        self.network._apply(fn)
        return super()._apply(fn, recurse)


def from_hub(teacher: str, repository: str, load: Callable[[], Loaded]) -> Loaded:
    """Return what `load` makes of a repository's files with the package `transformers`.

    Raises:
        InputError: it fails; the message has the reason and how to fetch the files.
    """
    try:
        return load()
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the teacher {teacher} needs {repository} and the package transformers, which cannot be had ({reason}); "
            f"fetch it ahead with `hf download {repository}`; a network with random weights would not do"
        ) from error


def require(weights: Weights, purpose: str, alternative: str | None = None) -> None:
    """Check that a published file is on this machine.

    Raises:
        InputError: it is not; the message has its name, its address and the alternative.
    """
    reason = weights.missing()
    if reason is not None:
        hint = "a network with random weights would not do" + (f"; {alternative}" if alternative else "")
        raise InputError(f"{purpose} {reason}; {hint}")


def freeze(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Freeze the modules with these dotted names: no gradients, eval mode (no codebook changes, no dropout).

    Raises:
        InputError: a name that no module has, a part of the quantizer, or names that leave nothing to train.
    """
    for name in names:
        try:
            module = tokenizer.get_submodule(name) if name else None
        except AttributeError:
            module = None
        if module is None:
            parts = ", ".join(part for part, _ in tokenizer.named_children())
            raise InputError(f"recipe: freeze: no module {name!r}; there are {parts} and the modules inside them")
        if name.startswith("quantizer."):
            raise InputError(f"recipe: freeze: expected the quantizer as a whole, got {name}")
        module.eval().requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in tokenizer.parameters()):
        raise InputError(f"recipe: freeze: nothing is left to train without {', '.join(names)}")
