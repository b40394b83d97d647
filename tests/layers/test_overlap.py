"""Long signals in parts: how many are computed; that they change nothing is tested with the networks that take them."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from zoo.layers.overlap import each_chunk, joined


@pytest.mark.parametrize("is_fake", [False, True])
def test_where_only_memory_counts_two_parts_are_computed(is_fake):
    computed = []

    def doubled(part):
        computed.append(part.shape[-1])
        return 2 * part

    x = torch.arange(100.0).reshape(1, 1, 100)
    if is_fake:
        with FakeTensorMode() as mode:
            assert joined(each_chunk(doubled, mode.from_tensor(x), 100, 10, 1), 100).shape == x.shape
        assert computed == [11, 12]
    else:
        assert torch.equal(joined(each_chunk(doubled, x, 100, 10, 1), 100), 2 * x)
        assert computed == [11, *[12] * 8, 11]
