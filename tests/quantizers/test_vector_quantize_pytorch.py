"""What only the quantizers of vector-quantize-pytorch do; what all quantizers promise is in test_quantizers.py."""

import copy
import pickle

import pytest
import torch
import vector_quantize_pytorch
from torch import Tensor, nn

from tests.support.quantizers import DIM, PACKAGE, latents
from zoo.errors import InputError
from zoo.quantizers import Quantizer, VectorQuantizePytorch

FSQ_OF_GROUPS = {"levels": [5, 3, 3], "num_quantizers": 3, "groups": 2}


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in quantizer.state_dict().items()}


def same_state(quantizer: Quantizer, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[key], tensor) for key, tensor in quantizer.state_dict().items())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ", "ResidualFSQ", "LFQ", "SimVQ"])
def test_codes_are_those_of_the_package(name):
    torch.manual_seed(3)
    quantizer = VectorQuantizePytorch(name, DIM, **PACKAGE[name]).eval()
    torch.manual_seed(3)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in PACKAGE[name].items()}
    module = getattr(vector_quantize_pytorch, name)(dim=DIM, **arguments).eval()
    z = latents(1, 200)
    quantized, indices, *_ = module(z)
    output = quantizer(z)
    assert torch.equal(output.codes, indices.reshape(output.codes.shape).long())
    assert torch.allclose(output.quantized, quantized, atol=1e-5)


def test_codebook_sizes_follow_from_the_arguments():
    sizes = VectorQuantizePytorch("ResidualVQ", 6, codebook_size=(16, 8)).codebook_sizes
    assert sizes == (16, 8)
    assert VectorQuantizePytorch("GroupedResidualFSQ", 6, **FSQ_OF_GROUPS).codebook_sizes == (45,) * 6
    assert VectorQuantizePytorch("LFQ", 6, codebook_size=8, num_codebooks=2).codebook_sizes == (8, 8)


def test_the_first_codes_of_residual_codebooks_are_a_coarser_code():
    quantizer = VectorQuantizePytorch("GroupedResidualFSQ", DIM, **FSQ_OF_GROUPS).eval()
    z = 0.5 * latents(2, 100)
    codes = quantizer.encode(z)
    errors = [(quantizer.codes_to_latent(codes[..., :number]) - z).square().mean() for number in (2, 4, 6)]
    assert errors[0] > errors[1] > errors[2]
    with pytest.raises(InputError, match="expected codes as"):
        quantizer.codes_to_latent(codes[..., :3])


def test_dropped_codebooks_have_no_codes():
    quantizer = VectorQuantizePytorch("GroupedResidualFSQ", DIM, **FSQ_OF_GROUPS, quantize_dropout=True)
    z = latents(2, 10)
    numbers = set()
    for _ in range(40):
        output = quantizer(z)
        assert (output.codes >= 0).all()
        numbers.add(output.codes.shape[-1])
    assert numbers == {2, 4, 6}
    assert quantizer.eval()(z).codes.shape[-1] == 6


def test_a_training_step_moves_a_running_average():
    quantizer = VectorQuantizePytorch("VectorQuantize", DIM, codebook_size=16)
    before = state(quantizer)
    quantizer(latents(2, 50))
    assert not same_state(quantizer, before)


def test_kmeans_starts_the_codebook_in_the_first_training_batch_alone():
    quantizer = VectorQuantizePytorch("ResidualVQ", DIM, codebook_size=16, num_quantizers=2, kmeans_init=True)
    before, z = state(quantizer), latents(2, 50)
    assert not quantizer.encode(z).any()
    assert not quantizer.eval()(z).codes.any()
    assert same_state(quantizer, before)
    quantizer.train()(z)
    assert not same_state(quantizer, before)
    assert len(quantizer.eval().encode(z).unique()) > 8


def test_the_codebook_loss_of_latent_quantize_moves_its_values():
    quantizer = VectorQuantizePytorch("LatentQuantize", DIM, levels=[5] * 6)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    z = 0.1 * latents(2, 200)
    losses = []
    for _ in range(50):
        losses.append(quantizer(z).losses["codebook_loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    output = quantizer.eval()(z)
    assert torch.equal(quantizer.codes_to_latent(output.codes), output.quantized)


def test_projections_of_a_quantizer_learn():
    quantizer = VectorQuantizePytorch("FSQ", 8, levels=[5, 5, 5])
    z = torch.randn(4, 30, 8)
    (quantizer(z).quantized - z).square().mean().backward()
    assert all((parameter.grad != 0).any() for parameter in quantizer.parameters())


@pytest.mark.parametrize("name", [name for name in PACKAGE if name != "LFQ, spherical"])  # holds a lambda
def test_a_quantizer_can_be_copied_and_pickled(name):
    quantizer = VectorQuantizePytorch(name.partition(",")[0], DIM, **PACKAGE[name])
    quantizer(latents(2, 50))
    quantizer.eval()
    codes = quantizer.encode(latents(2, 50))
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert torch.equal(other.encode(latents(2, 50)), codes)


def test_training_in_half_precision_is_refused():
    quantizer = VectorQuantizePytorch("VectorQuantize", DIM, codebook_size=16).bfloat16()
    with pytest.raises(InputError, match="trains in float32"):
        quantizer(latents(2, 5))


def test_the_vectors_of_one_codebook_are_refused():
    quantizer = VectorQuantizePytorch("VectorQuantize", DIM, codebook_size=16).eval()
    output = quantizer(latents(2, 5))
    with pytest.raises(InputError, match="does not return"):
        quantizer.vectors_of(0, output.quantized, output.codes)


def test_a_transform_of_the_codebook_may_be_given():
    transform = nn.Sequential(nn.Linear(DIM, 12), nn.ReLU(), nn.Linear(12, DIM))
    quantizer = VectorQuantizePytorch("SimVQ", DIM, codebook_size=16, codebook_transform=transform).eval()
    output = quantizer(latents(2, 5))
    assert torch.equal(quantizer.codes_to_latent(output.codes), output.quantized)
