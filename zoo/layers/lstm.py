"""A long short-term memory that `torch.compile` and `torch.export` trace, and that takes long signals in parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.inference import is_inferring

State = tuple[Tensor, Tensor]


class LSTM(nn.RNNBase):
    """`torch.nn.LSTM` with its parameters and results, from `[B, time, width]` to as many channels.

    `torch.compile` refuses `torch.nn.LSTM` by its class; the function that does its work is traced like any other.

    Args:
        width: number of channels. num_layers: number of layers, one after the other.
        bidirectional: whether each layer also runs from the last step to the first; the result then has the channels of
            both directions side by side.
    """

    def __init__(self, width: int, num_layers: int, *, bidirectional: bool = False):
        super().__init__("LSTM", width, width, num_layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the last layer's output at each step, and the state after the last step.

        Args:
            x: `[B, time, width]`.
            state: hidden and cell state `[num_layers, B, width]` (twice as many layers if bidirectional) before the
                first step; None: zeros.
        """
        return self._run(x, state, [weight for layer in self.all_weights for weight in layer], self.bidirectional)

    def in_parts(self, x: Tensor, steps: int) -> Tensor:
        """Return the last layer's output at each step of a long signal, of which little is computed at once.

        Args:
            x: `[B, time, width]`.
            steps: how many steps are computed at once; the result does not depend on it.
        """
        if torch.compiler.is_compiling() or x.shape[1] <= steps:
            return self(x)[0]
        if not self.bidirectional:
            return self._in_parts(x, steps, [[weight for layer in self.all_weights for weight in layer]])
        weights = self.all_weights  # of each layer forwards and backwards, in turn
        for forwards, backwards in zip(weights[::2], weights[1::2], strict=True):
            x = self._in_parts(x, steps, [[*forwards], [*backwards]])
        return x

    def _in_parts(self, x: Tensor, steps: int, ways: list[list[Tensor]]) -> Tensor:
        # Into one tensor: thousands of small ones leave holes in the memory between them.
        width, starts = self.hidden_size, range(0, x.shape[1], steps)
        out = x.new_empty(*x.shape[:2], len(ways) * width)
        for way, weights in enumerate(ways):
            state = None
            for start in reversed(starts) if way else starts:
                part = x[:, start : start + steps]
                said, state = self._run(part.flip(1) if way else part, state, weights, False)
                out[:, start : start + steps, way * width : (way + 1) * width] = said.flip(1) if way else said
        return out

    def _run(self, x: Tensor, state: State | None, weights: list[Tensor], bidirectional: bool) -> tuple[Tensor, State]:
        """Run layers of four tensors each over `x`."""
        if state is None:
            zeros = x.new_zeros(len(weights) // 4, x.shape[0], self.hidden_size)
            state = zeros, zeros
        layers = len(weights) // (8 if bidirectional else 4)
        run = (
            exported_lstm if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling() else torch.lstm
        )
        out, hidden, cell = run(x, state, weights, True, layers, 0.0, self.training, bidirectional, True)
        return out, (hidden, cell)


def remember(lstm: LSTM, x: Tensor, steps: int) -> Tensor:
    """Return `[B, channels, time]` with what an LSTM says at each step added to it, `steps` of them computed at once.

    To an LSTM that runs both ways it is added twice, side by side: the result has twice as many channels.
    """
    memory = lstm.in_parts(x.mT, steps).mT.unflatten(1, (2 if lstm.bidirectional else 1, -1))
    memory = memory.add_(x[:, None]) if is_inferring() else memory + x[:, None]
    return memory.flatten(1, 2)


@torch.library.custom_op("zoo::lstm", mutates_args=())
def exported_lstm(
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `torch.lstm`, of the same arguments, as an operator that `torch.export` does not look into.

    To find the shapes of `torch.lstm` itself, `torch.export` loops over the steps, and ties the graph to their number.
    """
    state, weights = list(state), list(weights)
    return torch.lstm(x, state, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first)


@exported_lstm.register_fake
def _shapes(
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = state
    out = x.new_empty(*x.shape[:2], hidden.shape[2] * (2 if bidirectional else 1))
    return out, torch.empty_like(hidden), torch.empty_like(cell)
