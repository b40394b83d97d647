"""`LSTM` has the parameters and the results of `torch.nn.LSTM`, and is traced."""

import pytest
import torch
from torch import nn

from zoo.layers.lstm import LSTM


def both(bidirectional: bool = False) -> tuple[LSTM, nn.LSTM]:
    torch.manual_seed(0)
    reference = nn.LSTM(8, 8, num_layers=2, batch_first=True, bidirectional=bidirectional)
    ours = LSTM(8, num_layers=2, bidirectional=bidirectional)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("bidirectional", [False, True])
def test_outputs_and_state_are_those_of_pytorch(bidirectional):
    ours, reference = both(bidirectional)
    x = torch.randn(3, 11, 8)
    out, state = ours(x)
    expected, expected_state = reference(x)
    assert torch.equal(out, expected)
    for tensor, other in zip(state, expected_state, strict=True):
        assert torch.equal(tensor, other)


def test_two_parts_give_what_the_whole_gives():
    ours, _ = both()
    x = torch.randn(3, 11, 8)
    first, state = ours(x[:, :4])
    second, _ = ours(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), ours(x)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 11])
def test_parts_of_any_length_give_what_the_whole_gives(bidirectional, steps):
    ours, reference = both(bidirectional)
    x = torch.randn(3, 11, 8)
    torch.testing.assert_close(ours.in_parts(x, steps), reference(x)[0])


def test_gradients_of_parts_are_those_of_the_whole():
    ours, reference = both(bidirectional=True)
    x = torch.randn(3, 11, 8)
    ours.in_parts(x, 4).square().sum().backward()
    reference(x)[0].square().sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad)


def test_it_compiles_to_one_graph():
    ours, _ = both()
    x = torch.randn(3, 11, 8)
    with torch.no_grad():
        compiled = torch.compile(ours, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x)[0], ours(x)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_exported_graph_holds_for_any_length(bidirectional):
    ours, _ = both(bidirectional)
    dynamic = torch.export.Dim.DYNAMIC
    graph = torch.export.export(NoGradient(ours), (torch.randn(2, 3, 8),), dynamic_shapes=({0: dynamic, 1: dynamic},))
    x = torch.randn(3, 11, 8)
    torch.testing.assert_close(graph.module()(x), ours(x)[0])


class NoGradient(nn.Module):
    """The outputs of an LSTM, as a tokenizer's `encode` computes them."""

    def __init__(self, lstm: LSTM):
        super().__init__()
        self.lstm = lstm

    @torch.no_grad()
    def forward(self, x):
        return self.lstm(x)[0]
