"""Weight-normalised layers compute what PyTorch's parametrization computes, with parameters that go into files."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import zoo
from zoo.checkpoints import check_state
from zoo.layers.weight_norm import WeightNorm, WeightNormConv1d, WeightNormConvTranspose1d, WeightNormLinear


def both() -> tuple[WeightNormConv1d, nn.Conv1d, dict[str, Tensor]]:
    """The same convolution by our module and by PyTorch's parametrization, and the latter's tensors."""
    torch.manual_seed(0)
    reference = weight_norm(nn.Conv1d(6, 4, 5, stride=2))
    nn.init.normal_(reference.parametrizations.weight.original0)
    state = reference.state_dict()
    ours = WeightNormConv1d(6, 4, 5, stride=2)
    ours.load_state_dict(check_state(state, ours.state_dict(), "reference"))
    return ours, reference, state


def test_it_computes_what_pytorch_does():
    ours, reference, _ = both()
    x = torch.randn(2, 6, 31)
    torch.testing.assert_close(ours(x), reference(x))


@pytest.mark.parametrize(
    ("ours", "reference", "x"),
    [
        (WeightNormConv1d(4, 6, 5, dilation=3, padding=6), nn.Conv1d(4, 6, 5, dilation=3, padding=6), (2, 4, 31)),
        (WeightNormConv1d(6, 6, 5, groups=6, bias=False), nn.Conv1d(6, 6, 5, groups=6, bias=False), (2, 6, 31)),
        (
            WeightNormConvTranspose1d(6, 4, 10, 5, padding=3, output_padding=1),
            nn.ConvTranspose1d(6, 4, 10, 5, padding=3, output_padding=1),
            (2, 6, 7),
        ),
        (WeightNormLinear(6, 4), nn.Linear(6, 4), (2, 3, 6)),
    ],
)
def test_every_layer_computes_what_pytorch_does(ours: WeightNorm, reference: nn.Module, x: tuple[int, ...]):
    normalised = weight_norm(reference)
    nn.init.normal_(normalised.parametrizations.weight.original0)
    ours.load_state_dict(check_state(normalised.state_dict(), ours.state_dict(), "reference"))
    signal = torch.randn(x)
    torch.testing.assert_close(ours(signal), normalised(signal))


@pytest.mark.parametrize(
    "layer", [WeightNormConv1d(64, 32, 7), WeightNormConvTranspose1d(64, 32, 16, 8), WeightNormLinear(64, 32)]
)
def test_a_new_layer_keeps_the_variance(layer: WeightNorm):
    torch.manual_seed(0)
    shape = (16, 64) if isinstance(layer, WeightNormLinear) else (16, 64, 200)
    assert 0.7 < float(layer(torch.randn(shape)).detach().var()) < 1.4


def test_its_gradients_are_those_of_pytorch():
    ours, reference, _ = both()
    x = torch.randn(2, 6, 31, dtype=torch.float64)
    for module in (ours.double(), reference.double()):
        module(x).square().sum().backward()
    theirs = reference.parametrizations.weight
    torch.testing.assert_close(ours.weight_g.grad, theirs.original0.grad)
    torch.testing.assert_close(ours.weight_v.grad, theirs.original1.grad)
    torch.testing.assert_close(ours.bias.grad, reference.bias.grad)


def test_files_with_the_names_of_the_parametrization_are_read():
    ours, _, state = both()
    assert ours.state_dict().keys() == {"weight_g", "weight_v", "bias"}
    assert torch.equal(ours.weight_g, state["parametrizations.weight.original0"])
    assert torch.equal(ours.weight_v, state["parametrizations.weight.original1"])


def test_a_tokenizer_comes_back_from_its_own_folder(tmp_path):
    tokenizer = zoo.load("wavtokenizer-nano")  # whose file has the names of the parametrization
    tokenizer.save_pretrained(tmp_path)
    for key, tensor in zoo.load(tmp_path).state_dict().items():
        assert torch.equal(tensor, tokenizer.state_dict()[key])
