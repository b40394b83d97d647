"""A network prepared for inference: the same codes and signals, and the same network to train, save and copy."""

import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import zoo
from zoo.inference import kept
from zoo.layers.upsampling import convolve_doubled
from zoo.layers.weight_norm import WeightNormConv1d

NAME = "llamagen-vq-16"


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def networks():
    """A small network, and a copy that is prepared."""
    torch.manual_seed(0)
    plain = zoo.create(NAME, small=True).eval()
    return plain, zoo.for_inference(copy.deepcopy(plain))


def test_a_prepared_network_has_the_codes_and_the_signal_of_the_plain_one(image):
    plain, prepared = networks()
    codes = plain.encode(image)
    assert torch.equal(prepared.encode(image), codes)
    torch.testing.assert_close(prepared.decode(codes), plain.decode(codes), atol=1e-5, rtol=0)


def test_a_prepared_network_saves_the_file_of_the_plain_one(tmp_path):
    for name, network in zip(("plain", "prepared"), networks(), strict=True):
        network.save_pretrained(tmp_path / name)
    plain, prepared = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "prepared"))
    assert plain.keys() == prepared.keys()
    assert all(torch.equal(plain[key], prepared[key]) for key in plain)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_of_a_prepared_network_has_its_codes(copied, image):
    _, prepared = networks()
    codes = prepared.encode(image)
    assert torch.equal(copied(prepared).encode(image), codes)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that `torch.compile` captures; they run as they are, without a compiler."""
    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return captured


@pytest.mark.parametrize("name", ["llamagen-vq-16", "speechtokenizer-hubert-avg"])
def test_a_tokenizer_loaded_with_compile_has_the_codes_and_the_signal_of_the_plain_one(name, tmp_path, graphs):
    plain = zoo.create(name, small=True).eval()
    plain.save_pretrained(tmp_path)
    compiled = zoo.load(tmp_path, compile=True)
    assert not graphs
    for side in (32, 48, 32, 64):
        size = (side, side + 16) if plain.spec.modality == "image" else (side * 100,)
        x = plain.modality.example(plain.spec, 2, size, torch.Generator().manual_seed(side))
        codes = plain.encode(x)
        assert torch.equal(compiled.encode(x), codes)
        torch.testing.assert_close(compiled.decode(codes), plain.decode(codes), atol=1e-5, rtol=0)
    assert 2 <= len(graphs) <= 6  # of two networks, at most one each a size


def test_a_copy_of_a_compiled_tokenizer_is_not_compiled(tmp_path, image, graphs):
    zoo.create(NAME, small=True).save_pretrained(tmp_path)
    compiled = zoo.load(tmp_path, compile=True)
    codes = pickle.loads(pickle.dumps(compiled)).encode(image)
    assert not graphs
    assert torch.equal(compiled.encode(image), codes)
    assert graphs


def test_a_prepared_network_is_trained_as_the_plain_one(image):
    losses = []
    for network in networks():
        network.train()
        output = network(image)
        loss = (output.reconstruction - image).square().mean() + sum(output.losses.values())
        loss.backward()
        losses.append(loss.item())
        assert all(parameter.grad is not None for parameter in network.decoder.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_network_whose_weights_change_after_it_decoded_decodes_with_the_new_ones(image):
    plain, prepared = networks()
    codes = plain.encode(image)
    prepared.decode(codes)
    with torch.no_grad():
        for network in (plain, prepared):
            for parameter in network.decoder.parameters():
                parameter.mul_(1.1)
    torch.testing.assert_close(prepared.decode(codes), plain.decode(codes), atol=1e-5, rtol=0)


def test_a_network_in_another_data_type_and_back_has_the_rounded_weights(image):
    plain, prepared = networks()
    codes = plain.encode(image)
    prepared.decode(codes)
    for network in (plain, prepared):
        network.to(torch.bfloat16).to(torch.float32)
    torch.testing.assert_close(prepared.decode(codes), plain.decode(codes), atol=1e-5, rtol=0)


def test_what_is_kept_is_computed_once_without_gradients_and_each_time_with_them():
    module = nn.Linear(2, 2).eval()
    calls = []

    def doubled(weight):
        calls.append(1)
        return 2 * weight

    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(kept(module, doubled, module.weight), 2 * module.weight)
    assert len(calls) == 1
    assert kept(module, doubled, module.weight).requires_grad
    assert len(calls) == 2


def test_a_weight_norm_whose_weights_are_loaded_again_has_the_loaded_ones():
    one, other = (WeightNormConv1d(2, 3, 5).eval() for _ in range(2))
    x = torch.randn(1, 2, 20)
    with torch.no_grad():
        one(x)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 7)])
def test_a_convolution_computed_before_the_doubling_is_the_one_after_it(size):
    conv = nn.Conv2d(8, 6, 3, padding=1)
    x = torch.randn(2, 8, *size)
    expected = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    zoo.for_inference(conv)
    with torch.no_grad():
        torch.testing.assert_close(convolve_doubled(conv, x), expected.detach(), atol=1e-5, rtol=1e-5)
