"""A long short-term memory that `torch.compile` and `torch.export` trace, and that takes long signals in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from zoo.inference import is_inferring
from zoo.layers.overlap import Tape, joined

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
        return self._run(x, state, self._every_weight(), self.bidirectional)

    def in_parts(self, x: Tensor, steps: int) -> Tensor:
        """Return the last layer's output at each step of a long signal, of which little is computed at once.

        Args:
            x: `[B, time, width]`.
            steps: how many steps are computed at once; the result does not depend on it.
        """
        if torch.compiler.is_compiling() or x.shape[1] <= steps:
            return self(x)[0]
        weights = self.all_weights  # of each layer forwards and, if bidirectional, backwards, in turn
        ways = 2 if self.bidirectional else 1
        for first in range(0, len(weights), ways):
            out = x.new_empty(*x.shape[:2], ways * self.hidden_size)
            for way in range(ways):
                half = out.narrow(-1, way * self.hidden_size, self.hidden_size)
                for part, said in self._parts(x, steps, [*weights[first + way]], backwards=way == 1):
                    half[:, part] = said
            x = out
        return x

    def _parts(
        self, x: Tensor, steps: int, weights: list[Tensor], *, backwards: bool
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield parts of the time and what layers of these weights say there in one direction."""
        state = None
        starts = range(0, x.shape[1], steps)
        for start in reversed(starts) if backwards else starts:
            part = slice(start, min(start + steps, x.shape[1]))
            said, state = self._run(x[:, part].flip(1) if backwards else x[:, part], state, weights, False)
            yield part, said.flip(1) if backwards else said

    def _every_weight(self) -> list[Tensor]:
        return [weight for layer in self.all_weights for weight in layer]

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


def remember(lstm: LSTM, parts: Iterator[Tensor], length: int, steps: int) -> Tensor | Tape:
    """Return a signal with what an LSTM says at each step added to it.

    To an LSTM that runs both ways it is added twice, side by side: the result has twice as many channels. Such an LSTM
    has to hear the end first. Any other one takes a part when it is needed, so that the signal never exists as a whole.

    Args:
        parts: the signal, `[B, channels, time]`, from start to end. length: number of its steps.
        steps: how many are computed at once, where the whole is needed; the result does not depend on it.
    """
    if not lstm.bidirectional:
        return Tape(_remembered(lstm, parts))
    x = joined(parts, length)
    memory = lstm.in_parts(x.mT, steps).mT.unflatten(1, (2, -1))
    memory = memory.add_(x[:, None]) if is_inferring() else memory + x[:, None]
    return memory.flatten(1, 2)


def _remembered(lstm: LSTM, parts: Iterator[Tensor]) -> Iterator[Tensor]:
    state = None
    for part in parts:
        said, state = lstm(part.mT, state)
        yield part + said.mT


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
