"""A long short-term memory that `torch.compile` and `torch.export` trace, and that takes long signals in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

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
        for forwards, backwards in zip(weights[::2], weights[1::2], strict=True):
            there = self._one_way(parts, [forwards])
            back = self._one_way([part.flip(1) for part in reversed(parts)], [backwards])
            both = zip(there, reversed(list(back)), strict=True)
            parts = [torch.cat([one, other.flip(1)], dim=-1) for one, other in both]
        return list(parts)

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
        options = (True, layers, 0.0, self.training, bidirectional, True)
        if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():  # in torch.export
            with shapes_without_a_loop():
                out, hidden, cell = torch.lstm(x, state, weights, *options)
        else:
            out, hidden, cell = torch.lstm(x, state, weights, *options)
        return out, (hidden, cell)


@contextmanager
def shapes_without_a_loop() -> Iterator[None]:
    """Context in which `torch.export` finds the shapes of an LSTM without a loop over the steps.

    `torch.export` turns oneDNN off, without which PyTorch takes such a loop, and the graph holds for as many steps.
    """
    enabled, *_ = torch.backends.mkldnn.set_flags(_enabled=True, _fp32_precision=None)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled, _fp32_precision=None)
