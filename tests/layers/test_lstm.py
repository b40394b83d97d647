"""`LSTM` has the parameters and the results of `torch.nn.LSTM`, and is traced."""

import torch
from torch import nn

from zoo.layers.lstm import LSTM


def both() -> tuple[LSTM, nn.LSTM]:
    torch.manual_seed(0)
    reference = nn.LSTM(8, 8, num_layers=2, batch_first=True)
    ours = LSTM(8, num_layers=2)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def test_outputs_and_state_are_those_of_pytorch():
    ours, reference = both()
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


def test_it_compiles_to_one_graph():
    ours, _ = both()
    x = torch.randn(3, 11, 8)
    with torch.no_grad():
        compiled = torch.compile(ours, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x)[0], ours(x)[0])
