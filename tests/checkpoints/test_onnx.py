"""ONNX graphs, read as data."""

import pytest
import torch

import zoo
from zoo.checkpoints import read_checkpoint

onnx = pytest.importorskip("onnx")
WEIGHT = torch.arange(6.0).reshape(2, 3)


def tensor(name: str, values: torch.Tensor):
    return onnx.numpy_helper.from_array(values.numpy(), name)


def model(nodes: list, tensors: list) -> bytes:
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [], tensors)).SerializeToString()


@pytest.fixture
def read(tmp_path):
    def read(content: bytes):
        (tmp_path / "graph.onnx").write_bytes(content)
        return read_checkpoint(tmp_path / "graph.onnx")

    return read


def test_a_weight_has_its_own_name_and_that_of_the_module_and_operator_that_take_it(read):
    nodes = [
        onnx.helper.make_node("Add", ["x", "small"], ["y"], name="/block/norm/Add"),
        onnx.helper.make_node("Add", ["bias", "y"], ["z"], name="/block/norm/Add_1"),
        onnx.helper.make_node("Conv", ["z", "onnx::Conv_7", "bias"], ["out"], name="/block/Conv"),
    ]
    bias = torch.ones(3)
    found = read(model(nodes, [tensor("onnx::Conv_7", WEIGHT), tensor("bias", bias), tensor("small", torch.ones(()))]))
    assert found.keys() == {"onnx::Conv_7", "bias", "/block/norm/Add:0", "/block/Conv:0", "/block/Conv:1"}
    assert torch.equal(found["/block/Conv:0"], WEIGHT)
    assert torch.equal(found["/block/norm/Add:0"], bias)


def test_a_weight_in_a_constant_node_is_read(read):
    constant = onnx.helper.make_node("Constant", [], ["c"], name="/Constant", value=tensor("", WEIGHT))
    found = read(model([constant, onnx.helper.make_node("MatMul", ["x", "c"], ["y"], name="/m/MatMul")], []))
    assert torch.equal(found["/m/MatMul:0"], WEIGHT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floating_types_are_read_and_integers_are_not(read, dtype):
    found = read(model([], [tensor("w", WEIGHT.to(dtype)), tensor("shape", torch.tensor([1, 2]))]))
    assert found.keys() == {"w"}
    assert torch.equal(found["w"], WEIGHT.to(dtype))


def test_numbers_that_are_stored_one_by_one_are_read(read):
    stored = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, WEIGHT.shape, WEIGHT.flatten().tolist())
    assert torch.equal(read(model([], [stored]))["w"], WEIGHT)


def test_weights_in_another_file_are_refused(read):
    outside = tensor("w", WEIGHT)
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(zoo.CheckpointError, match="its weights lie in another file"):
        read(model([], [outside]))


def test_a_shape_that_the_stored_bytes_do_not_fill_is_refused(read):
    stated = tensor("w", WEIGHT)
    stated.dims[0] = 2**40
    with pytest.raises(zoo.CheckpointError, match="24 bytes, expected"):
        read(model([], [stated]))


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_file_that_is_cut_short_is_refused(read, cut):
    whole = model([onnx.helper.make_node("Add", ["x", "w"], ["y"], name="/Add")], [tensor("w", WEIGHT)])
    with pytest.raises(zoo.CheckpointError, match="truncated or not a checkpoint"):
        read(whole[:-cut])


@pytest.mark.parametrize("content", [b"", b"\x08\x0d", b"not a graph at all", b"\xff" * 20])
def test_a_file_that_is_no_graph_is_refused(read, content):
    with pytest.raises(zoo.CheckpointError, match="truncated or not a checkpoint"):
        read(content)
