"""HierarchicalVQ of vector-quantize-pytorch: codes in one row, scale after scale, and the first scales alone."""

import copy

import pytest
import torch
import vector_quantize_pytorch

import zoo
from tests.support.quantizers import DIM
from zoo.errors import InputError
from zoo.quantizers import HierarchicalVQ, create
from zoo.testing import signal

ARGUMENTS = {"codebook_size": 16, "scales": [1, 2, 3, [4, 4]], "kmeans_init": False}
POSITIONS = (1, 5, 14, 30)


def latents(batch: int = 2, seed: int = 1) -> torch.Tensor:
    return 2 * torch.randn(batch, 4, 4, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def quantizer() -> HierarchicalVQ:
    torch.manual_seed(0)
    made = create("vector-quantize-pytorch/HierarchicalVQ", DIM, **ARGUMENTS)
    made(latents(8, seed=3))  # which moves its codebook
    return made.eval()


def test_codes_and_latents_are_those_of_the_package(quantizer):
    package = vector_quantize_pytorch.HierarchicalVQ(
        dim=DIM, codebook_size=16, scales=[1, 2, 3, 4], accept_image_fmap=True
    ).eval()
    package.load_state_dict(quantizer.module.state_dict())
    z = latents()
    expected, indices, _ = package(z.movedim(-1, 1))
    codes = quantizer.encode(z)
    assert codes.shape == (2, 30, 1) and codes.dtype == torch.int64
    assert torch.equal(codes[..., 0], torch.cat([scale.flatten(1) for scale in indices], dim=1))
    torch.testing.assert_close(quantizer.codes_to_latent(codes), expected.movedim(1, -1))
    assert torch.equal(quantizer(z).quantized, quantizer.codes_to_latent(codes))
    assert torch.equal(quantizer(z).codes, codes)
    assert torch.equal(quantizer.encode(z[:1]), codes[:1])


def test_the_first_scales_are_a_coarser_code(quantizer):
    z = latents()
    codes = quantizer.encode(z)
    for number, positions in enumerate(POSITIONS, start=1):
        assert torch.equal(quantizer.encode(z, num_scales=number), codes[:, :positions])
        assert quantizer.codes_to_latent(codes[:, :positions]).shape == z.shape
    with pytest.raises(InputError, match="expected num_scales from 1 to 4, got 5"):
        quantizer.encode(z, num_scales=5)
    with pytest.raises(InputError, match=r"expected codes as \[batch, 1, 5, 14, 30, \*\], got \[2, 7, 1\]"):
        quantizer.codes_to_latent(codes[:, :7])
    with pytest.raises(InputError, match=r"expected a latent on one of the grids \[\(4, 4\)\], got \(3, 4\)"):
        quantizer.encode(z[:, :3])


def test_a_gradient_reaches_the_latents_and_the_loss_has_a_name(quantizer):
    z = latents().requires_grad_()
    output = quantizer.train()(z)
    assert output.codes.shape == (2, 30, 1)
    (output.quantized * latents(seed=2)).sum().backward()
    assert z.grad.isfinite().all() and (z.grad != 0).any(dim=-1).all()
    assert output.losses.keys() == {"commitment_loss"} and output.losses["commitment_loss"].shape == ()
    assert quantizer.eval()(latents()).losses == {}


def test_encoding_changes_no_state_and_half_precision_has_the_codes_of_float32(quantizer):
    before = copy.deepcopy(quantizer.state_dict())
    codes = quantizer.train().encode(latents())
    assert all(torch.equal(before[key], tensor) for key, tensor in quantizer.state_dict().items())
    z = latents().bfloat16()
    assert torch.equal(quantizer.eval().encode(z), quantizer.encode(z.float()))
    assert torch.equal(quantizer.encode(latents()), codes)
    with pytest.raises(InputError, match="trains in float32"):
        quantizer.bfloat16().train()(latents())


def test_dropped_scales_have_no_codes():
    quantizer = HierarchicalVQ(DIM, **ARGUMENTS, nested_dropout=1.0)
    assert {quantizer(latents()).codes.shape[1] for _ in range(40)} == set(POSITIONS[:-1])
    assert quantizer.eval()(latents()).codes.shape[1] == POSITIONS[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebook_size": [16, 8, 8, 8], "shared_codebook": False}, "expected scales with one size of codebooks"),
        ({"scales": [2, 1]}, "HierarchicalVQ refuses dim 6"),
        ({"channel_first": False}, "HierarchicalVQ has no argument channel_first"),
        ({"accept_3d_fmap": True}, "HierarchicalVQ has no argument accept_3d_fmap"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        HierarchicalVQ(DIM, **ARGUMENTS | arguments)


def test_a_tokenizer_has_a_pyramid_of_codes_and_comes_back(tmp_path):
    torch.manual_seed(0)
    tokenizer = zoo.create("llamagen-vq-8", small=True)
    zoo.requantize(tokenizer, "vector-quantize-pytorch/HierarchicalVQ", **ARGUMENTS).eval()
    assert tokenizer.spec.scales == ((1, 1), (2, 2), (3, 3), (4, 4))
    assert tokenizer.spec.resolution == (32, 32) and not tokenizer.spec.variable_size
    image = signal(tokenizer, 2, (32, 32))
    codes = tokenizer.encode(image)
    assert codes.shape == (2, 1, 30)
    assert torch.equal(tokenizer.encode(image, num_scales=2), codes[..., :5])
    assert torch.equal(tokenizer.decode(codes[..., :5]), tokenizer.decode(codes, num_scales=2))
    tokenizer.save_pretrained(tmp_path)
    loaded = zoo.load(tmp_path)
    assert loaded.spec == tokenizer.spec
    assert torch.equal(loaded.encode(image), codes)
    assert torch.equal(loaded.decode(codes), zoo.for_inference(tokenizer).decode(codes))
