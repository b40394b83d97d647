"""A long short-term memory that `torch.compile` and `torch.export` trace, and that takes long signals in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

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

    def in_parts(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the last layer's output at each step of a long signal, part by part, which needs less memory.

        Args:
            parts: `[B, time, width]`, one after the other.
        """
        if len(parts) == 1:  # always so in a traced graph
            return [self(parts[0])[0]]
        if not self.bidirectional:
            return list(self._one_way(parts, self.all_weights))
        weights = self.all_weights  # of each layer forwards and backwards, in turn
        parts = list(parts)
        for forwards, backwards in zip(weights[::2], weights[1::2], strict=True):
            back = list(self._one_way((part.flip(1) for part in reversed(parts)), [backwards]))
            there = self._one_way(drained(parts), [forwards])
            parts = [torch.cat([one, back.pop().flip(1)], dim=-1) for one in there]
        return parts

    def _one_way(self, parts: Iterable[Tensor], layers: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
        weights, state = [weight for layer in layers for weight in layer], None
        for part in parts:
            out, state = self._run(part, state, weights, False)
            yield out

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


def drained(parts: list[Tensor]) -> Iterator[Tensor]:
    """Yield the tensors of a list, which lets go of each before the next one."""
    while parts:
        yield parts.pop(0)


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
