"""Frozen networks."""

import torch
from torch import nn

from zoo.trainers.frozen import Frozen


def test_a_frozen_network_belongs_to_no_one_and_moves_along():
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    owner = nn.ModuleDict({"frozen": Frozen(network), "own": nn.Linear(3, 3)}).train()
    assert len(list(owner.parameters())) == 2 and list(owner.state_dict()) == ["own.weight", "own.bias"]
    x = torch.randn(2, 3, requires_grad=True)
    owner["frozen"](x).sum().backward()
    assert x.grad is not None and network[0].weight.grad is None
    torch.testing.assert_close(owner["frozen"](x), network[0](x))  # no dropout
    owner.double()
    assert network[0].weight.dtype == torch.float64
