"""A long short-term memory that `torch.compile` and `torch.export` trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTM(nn.RNNBase):
    """`torch.nn.LSTM` with its parameters and results, from `[B, time, width]` to as many channels.

    `torch.compile` refuses `torch.nn.LSTM` by its class; the function that does its work is traced like any other.
    """

    def __init__(self, width: int, num_layers: int):
        super().__init__("LSTM", width, width, num_layers, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the last layer's output at each step, and the state after the last step.

        Args:
            x: `[B, time, width]`.
            state: hidden and cell state `[num_layers, B, width]` before the first step; None: zeros.
        """
        if state is None:
            zeros = x.new_zeros(self.num_layers, x.shape[0], self.hidden_size)
            state = zeros, zeros
        weights: list[Tensor] = [weight for layer in self.all_weights for weight in layer]
        out, hidden, cell = torch.lstm(x, state, weights, True, self.num_layers, 0.0, self.training, False, True)
        return out, (hidden, cell)
