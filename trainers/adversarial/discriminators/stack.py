"""The types that discriminators return, and the convolutional layers that those of audio share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

# One discriminator's networks: the logits of each, `[items, 1, ...]`, and the feature maps that matching compares.
Judgements = list[tuple[Tensor, list[Tensor]]]

# Which maps feature matching compares, out of those of the hidden layers in order and then the logits.
ALL = slice(None)
HIDDEN = slice(-1)
BUT_FIRST = slice(1, None)


class Stack(nn.Module):
    """Convolutions with a LeakyReLU after each but the last, whose output is the logits.

    Args:
        convolutions: in the order in which they are applied.
        slope: slope of the LeakyReLU below zero.
        features: which of the maps (`ALL`, `HIDDEN`, `BUT_FIRST`) count as features; hidden maps are taken after the
            LeakyReLU.
    """

    def __init__(self, convolutions: Sequence[nn.Module], slope: float, features: slice = ALL):
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.slope, self.features = slope, features

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        *hidden, last = self.convolutions
        maps = []
        for convolution in hidden:
            x = functional.leaky_relu(convolution(x), self.slope)
            maps.append(x)
        maps.append(last(x))
        return maps[-1], maps[self.features]
