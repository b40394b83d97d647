"""Quantizers in graphs: exported and compiled for any batch and grid, and with tensors that have no values."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from tests.support.quantizers import DIM, FAMILIES, OURS, PACKAGE, build, latents
from zoo.quantizers import Quantizer, nearest_code, without_autocast

BATCH, POSITIONS = torch.export.Dim("batch", max=64), torch.export.Dim("positions", max=4096)


class Encode(nn.Module):
    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: Tensor) -> Tensor:
        return self.quantizer.encode(z)


class Decode(nn.Module):
    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, codes: Tensor) -> Tensor:
        return self.quantizer.codes_to_latent(codes)


def both_ways(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Encoding and decoding, each with inputs of two sizes."""
    quantizer = build(name)
    small, large = latents(3, 5), latents(4, 70)
    return [
        (Encode(quantizer), small, large),
        (Decode(quantizer), quantizer.encode(small), quantizer.encode(large)),
    ]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_quantizer_gives_the_same_for_any_batch_and_grid(name, strict):
    for module, small, large in both_ways(name):
        program = torch.export.export(module, (small,), dynamic_shapes=({0: BATCH, 1: POSITIONS},), strict=strict)
        assert torch.equal(program.module()(large), module(large))


@pytest.mark.parametrize("name", OURS)
def test_a_compiled_quantizer_is_one_graph_and_gives_the_same(name):
    for module, small, large in both_ways(name):
        torch._dynamo.reset()
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
        assert torch.equal(compiled(small), module(small))
        assert torch.equal(compiled(large), module(large))


@pytest.mark.parametrize("name", OURS)
def test_on_fake_cuda_tensors_nothing_is_made_on_the_cpu(name):
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.device("cuda"):
            quantizer = FAMILIES[name]().eval()
        z = torch.empty(2, 7, DIM, device="cuda")
        output = quantizer(z)
        for tensor in (quantizer.encode(z), quantizer.codes_to_latent(output.codes), output.quantized):
            assert tensor.device.type == "cuda"


@pytest.mark.parametrize("name", PACKAGE)
def test_quantizers_of_the_package_export_for_one_size(name):
    for module, small, _ in both_ways(f"vector-quantize-pytorch/{name}"):
        program = torch.export.export(module, (small,))
        assert torch.equal(program.module()(small), module(small))


def test_the_nearest_rows_of_a_traced_graph_are_those_of_many_tiles():
    z, rows = torch.randn(50, 3), torch.randn(40000, 3)
    compiled = torch.compile(nearest_code, fullgraph=True, backend="eager")
    assert torch.equal(compiled(z, rows), nearest_code(z, rows))


def test_without_autocast_leaves_no_trace_where_there_is_none():
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with without_autocast(x):
                return 2 * x

    program = torch.export.export(Doubled(), (torch.ones(2),))
    assert [node.op for node in program.graph.nodes] == ["placeholder", "call_function", "output"]
