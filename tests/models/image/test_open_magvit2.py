"""Open-MAGVIT2 against a plain computation from the published keys, at a small configuration."""

from dataclasses import replace

import pytest
import torch

import zoo
from tests.support.plain_wetok import DIM, MULTIPLIERS, NUM_BLOCKS, WIDTH, write_golden
from zoo.facts import num_parameters
from zoo.parity import parity


@pytest.fixture(autouse=True)
def small_variant(registrations):
    like = zoo.info("open-magvit2-256")
    zoo.register(
        "open-magvit2-small",
        like.builder,
        spec=replace(like.spec, name="open-magvit2-small", codebook_sizes=(2**DIM,), downsample=(4, 4)),
        config={"multipliers": MULTIPLIERS, "width": WIDTH, "num_blocks": NUM_BLOCKS, "dim": DIM},
        keys=like.keys,
        card=like.card,
    )


@pytest.mark.parametrize(("size", "batch", "seed"), [((32, 32), 1, 0), ((20, 44), 3, 7)])
def test_small_open_magvit2_computes_what_its_description_says(tmp_path, size, batch, seed):
    report = parity("open-magvit2-small", *write_golden(tmp_path, False, size, batch, seed, groups=1))
    assert set(report.differences) == {"latent", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    report = parity("open-magvit2-small", *write_golden(tmp_path, False, (32, 32), 1, 0, groups=1), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


@pytest.mark.parametrize(
    ("name", "millions"), [("open-magvit2-256", 115.2), ("open-magvit2-128", 112.0), ("open-magvit2-pt-16384", 115.0)]
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(millions, abs=0.15)


def test_a_code_of_18_bits_names_its_signs_from_the_first_channel_on():
    tokenizer = zoo.create("open-magvit2-256", small=True).eval()
    signs = torch.where(torch.rand(1, 18, 2, 3) > 0.5, 1.0, -1.0)
    codes = tokenizer.quantize(signs)
    assert torch.equal(codes[:, 0], sum((signs[:, k] > 0).long() << k for k in range(18)))
    assert torch.equal(tokenizer.embed(codes), signs)


def test_an_image_whose_codes_could_not_be_decoded_is_refused():
    tokenizer = zoo.create("open-magvit2-256", small=True).eval()
    with pytest.raises(zoo.InputError, match="open-magvit2-256 takes images larger than 16x16 pixels"):
        tokenizer.encode(torch.rand(1, 3, 16, 16))
    with pytest.raises(zoo.InputError, match="at least two positions"):
        tokenizer.decode(torch.zeros(1, 1, 1, 1, dtype=torch.long))
