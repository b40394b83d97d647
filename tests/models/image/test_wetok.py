"""WeTok against a plain computation from the published keys, at a small configuration."""

import pytest
import torch

import zoo
from tests.support.plain_wetok import DIM, register_small, write_golden
from zoo.parity import parity


@pytest.fixture(autouse=True)
def registry_left_as_found(registrations):
    pass


@pytest.mark.parametrize("generative", [False, True])
@pytest.mark.parametrize(("size", "batch", "seed"), [((32, 32), 1, 0), ((20, 44), 3, 7)])
def test_small_wetok_computes_what_its_description_says(tmp_path, generative, size, batch, seed):
    register_small("wetok-small", generative)
    report = parity("wetok-small", *write_golden(tmp_path, generative, size, batch, seed))
    assert report.code_agreement == 1.0
    assert set(report.differences) == {"latent", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    register_small("wetok-small", False)
    report = parity("wetok-small", *write_golden(tmp_path, False, (32, 32), 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def test_the_generative_decoder_draws_noise_unless_it_is_given():
    register_small("wetok-small", True)
    tokenizer = zoo.create("wetok-small").eval()
    codes = torch.randint(256, (1, 2, 4, 4))
    draw = [tokenizer.decode(codes, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    noise = torch.zeros(1, DIM, 4, 4)
    assert torch.equal(tokenizer.decode(codes, noise=noise), tokenizer.decode(codes, noise=noise))
    with pytest.raises(zoo.InputError, match=r"expected noise as \[1, 16, 4, 4\], got \[1, 16, 2, 2\]"):
        tokenizer.decode(codes, noise=noise[..., :2, :2])


def test_one_position_cannot_be_decoded():
    register_small("wetok-small", False)
    with pytest.raises(zoo.InputError, match="at least two positions"):
        zoo.create("wetok-small").eval().decode(torch.zeros(1, 2, 1, 1, dtype=torch.long))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wetok-general-24", 448.5), ("wetok-imagenet-f16", 460.3), ("wetok-general-768", 1673.7)],
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    variant = zoo.info(name)
    with torch.device("meta"):
        tokenizer = variant.builder(variant.spec, **variant.config)
    assert tokenizer.num_parameters / 1e6 == pytest.approx(millions, abs=0.2)


@pytest.mark.parametrize("size", [(8, 8), (1, 1)])
def test_an_image_whose_codes_could_not_be_decoded_is_refused(size):
    tokenizer = zoo.create("wetok-imagenet-f8", small=True).eval()
    with pytest.raises(zoo.InputError, match="wetok-imagenet-f8 takes images larger than 8x8 pixels"):
        tokenizer.encode(torch.rand(1, 3, *size))
    larger = torch.rand(1, 3, 8, 9)
    assert tokenizer.decode(tokenizer.encode(larger), size=(8, 9)).shape == larger.shape
