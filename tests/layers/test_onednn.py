"""Products and convolutions by oneDNN: the values of `torch.nn.functional`, whatever else is in the batch."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.layers import onednn

by_onednn = pytest.mark.skipif(not onednn.IS_THERE, reason="PyTorch multiplies by oneDNN on x86 alone")


def random(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("shape", [(100,), (1, 100), (2, 5, 100), (1, 300, 100), (0, 100)])
@pytest.mark.parametrize("bias", [None, random(70)])
def test_a_linear_map_has_the_values_of_pytorch(shape, bias):
    x, weight = random(*shape), random(70, 100)
    close(onednn.linear(x, weight, bias), F.linear(x, weight, bias))


@by_onednn
@pytest.mark.parametrize("width", [65, 384, 385, 768, 1300])
def test_what_a_row_becomes_does_not_depend_on_the_others(width):
    x, weight, bias = random(300, width), random(130, width), random(130)
    together = onednn.linear(x, weight, bias)
    for count in (17, 18, 40, 70, 126, 127, 128, 299):
        assert torch.equal(onednn.linear(x[:count], weight, bias), together[:count]), count


def test_a_weight_with_gaps_in_its_memory_is_multiplied():
    x, weights = random(40, 100), random(70, 100, 3)
    close(onednn.linear(x, weights[:, :, 1]), F.linear(x, weights[:, :, 1]))
    close(onednn.linear(x, random(100, 70).T), F.linear(x, random(100, 70).T))


@pytest.mark.parametrize("channels", [8, 600])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [None, random(12)])
def test_a_convolution_of_one_step_has_the_values_of_pytorch(channels, batch, bias):
    x, weight = random(batch, channels, 50), random(12, channels, 1)
    for signal in (x, x[..., 3:41], x.mT.contiguous().mT):
        close(onednn.conv1d(signal, weight, bias), F.conv1d(signal, weight, bias))


@by_onednn
def test_an_item_has_the_same_values_alone_and_in_a_batch():
    x, weight, bias = random(4, 48, 90), random(64, 48, 1), random(64)
    assert torch.equal(onednn.conv1d(x, weight, bias)[2:3], onednn.conv1d(x[2:3], weight, bias))


@pytest.mark.parametrize("length", [7, 30, 31, 100])
@pytest.mark.parametrize(("dilation", "padding"), [(2, 0), (2, 6), (3, 9), (3, 7), (9, 27), (4, 25)])
def test_a_dilated_depthwise_convolution_has_the_values_of_pytorch(length, dilation, padding):
    x, weight, bias = random(2, 6, length), random(6, 1, 7), random(6)
    if length + 2 * padding <= 6 * dilation:
        length += 6 * dilation
        x = random(2, 6, length)
    expected = F.conv1d(x, weight, bias, padding=padding, dilation=dilation, groups=6)
    close(onednn.conv1d(x, weight, bias, 1, padding, dilation, 6), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv1d(6, 8, 1),
        lambda: nn.Conv1d(6, 6, 3, padding=4, dilation=4, groups=6),
        lambda: nn.Conv1d(6, 8, 3, stride=2, padding=1),
        lambda: nn.Conv1d(6, 8, 3, padding=1, padding_mode="replicate"),
        lambda: nn.Conv1d(6, 6, 3, padding="same", dilation=2, groups=6),
        lambda: nn.Conv1d(6, 12, 3, padding=2, dilation=2, groups=6),
        lambda: nn.Conv1d(6, 8, 1, padding=1),
        lambda: nn.Conv1d(6, 8, 1, groups=2),
    ],
)
def test_a_convolution_in_a_network_has_the_values_of_pytorch(make):
    conv = make().eval()
    x = random(2, 6, 31)
    expected = conv(x)
    onednn.use_onednn(conv)
    close(conv(x), expected)
    close(conv(x[0]), expected[0])


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"groups": 2}])
def test_a_convolution_of_one_pixel_has_the_values_of_pytorch(options):
    conv = nn.Conv2d(6, 8, 1, **options).eval()
    x = random(2, 6, 9, 7)
    expected = conv(x)
    onednn.use_onednn(conv)
    for signal in (x, x.to(memory_format=torch.channels_last), x[:1]):
        close(conv(signal), expected[: len(signal)])


def test_a_network_keeps_its_parameters_and_can_be_copied():
    network = nn.Sequential(nn.Linear(80, 70), nn.Sequential(nn.Conv1d(5, 5, 1)))
    state = copy.deepcopy(network.state_dict())
    onednn.use_onednn(network)
    assert list(state) == list(network.state_dict())
    assert isinstance(network[0], nn.Linear)
    x = random(3, 80)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other[0](x), network[0](x))


def test_every_module_that_becomes_a_part_of_a_tokenizer_uses_it():
    tokenizer = zoo.create("titok-s-128", small=True)
    assert any(isinstance(module, onednn.Linear) for module in tokenizer.modules())
    assert not any(type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d) for module in tokenizer.modules())


def test_what_has_a_gradient_another_data_type_or_a_graph_is_pytorchs():
    linear = nn.Linear(80, 70)
    quick = copy.deepcopy(linear)
    onednn.use_onednn(quick)
    x = random(20, 80)
    with torch.enable_grad():
        quick(x).sum().backward()
        linear(x).sum().backward()
    assert torch.equal(quick.weight.grad, linear.weight.grad)
    assert torch.equal(quick.double()(x.double()), linear.double()(x.double()))
    quick.float(), linear.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(x).dtype == torch.bfloat16
    program = torch.export.export(quick, (x,))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.linear.default
    ]
    meta = quick.to("meta")(x.to("meta"))
    assert meta.is_meta and meta.shape == (20, 70)
