"""When the values of a tensor may be read."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from zoo.errors import InputError
from zoo.tracing import values_are_readable


class Checked(nn.Module):
    """Doubles numbers, after a check of their values."""

    def forward(self, x: Tensor) -> Tensor:
        if values_are_readable(x) and bool((x < 0).any()):
            raise InputError("negative")
        return 2 * x


def test_values_of_an_ordinary_tensor_are_readable():
    assert values_are_readable(torch.ones(2))
    with pytest.raises(InputError, match="negative"):
        Checked()(torch.tensor([-1.0]))


def test_values_of_a_meta_tensor_are_not_readable():
    assert not values_are_readable(torch.ones(2, device="meta"))


def test_values_of_a_fake_tensor_are_not_readable_inside_its_mode_or_outside():
    mode = FakeTensorMode()
    with mode:
        fake = torch.ones(2, device="cuda")
        assert not values_are_readable(fake)
    assert not values_are_readable(fake)
    assert not values_are_readable(nn.Parameter(fake))


def test_values_of_an_ordinary_tensor_are_not_readable_under_a_fake_mode():
    tensor = torch.ones(2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert not values_are_readable(tensor)


@pytest.mark.parametrize("strict", [False, True])
def test_a_guarded_check_is_left_out_of_an_exported_program(strict):
    program = torch.export.export(Checked(), (torch.ones(2),), strict=strict)
    assert program.module()(torch.tensor([-1.0, 3.0])).tolist() == [-2, 6]


def test_a_guarded_check_does_not_break_a_compiled_graph():
    compiled = torch.compile(Checked(), fullgraph=True, backend="eager")
    assert compiled(torch.tensor([-1.0, 3.0])).tolist() == [-2, 6]
