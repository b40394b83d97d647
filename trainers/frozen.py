"""Published networks that losses look through and that never learn."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import InputError
from zoo.metrics.networks import Weights


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


def require(weights: Weights, purpose: str) -> None:
    """InputError that names the file and where it is to be had, unless it is there."""
    reason = weights.missing()
    if reason is not None:
        raise InputError(f"{purpose} {reason}; no network is used with random weights in its place")
