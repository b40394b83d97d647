"""VAR: what its pyramid adds, and the authors' resizing."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints import assign, without_storage
from zoo.facts import num_parameters
from zoo.parity import synthetic_checkpoint
from zoo.spec import ends

NAME = "var-vq-16-4096"


def test_it_has_the_published_number_of_parameters_and_tokens():
    variant = zoo.info(NAME)
    assert num_parameters(variant) / 1e6 == pytest.approx(108.9, abs=0.06)
    assert (variant.spec.tokens((256, 256)), variant.spec.bits((256, 256))) == (680, 8160)
    assert zoo.info("var-vq-16-4096-512").spec.tokens((512, 512)) == 2240


@pytest.mark.parametrize("name", [NAME, "var-vq-16-4096-512"])
def test_the_table_of_convolutions_is_that_of_ten_scales(name):
    assert zoo.create(name, small=True).quantizer.phi_of_scale == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)


def test_queries_keys_and_values_lie_in_one_published_tensor():
    variant = zoo.info(NAME)
    stacked = torch.arange(6.0)
    values = {}
    for name in "qkv":
        published, transform = variant.keys.published_key(f"decoder.levels.0.attentions.1.{name}.bias")
        assert published == "decoder.up.4.attn.1.qkv.bias"
        values[name] = transform(stacked).tolist()
    assert values == {"q": [0, 1], "k": [2, 3], "v": [4, 5]}


@pytest.mark.parametrize("size", [(400, 300), (200, 333), (512, 512)])
def test_images_are_made_an_eighth_larger_with_lanczos_and_their_middle_is_taken(size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    width, height = size
    larger = (288, 288 * height // width) if width <= height else (288 * width // height, 288)
    resized = picture.resize(larger, Image.Resampling.LANCZOS)
    left, top = (round((length - 256) / 2) for length in larger)
    expected = np.asarray(resized.crop((left, top, left + 256, top + 256)), dtype=np.float32) / 255
    image = zoo.create(NAME, small=True).preprocess(picture)
    assert torch.allclose(image[0].movedim(0, -1), torch.from_numpy(expected))


@pytest.mark.slow
@torch.inference_mode()
def test_the_first_scales_are_those_of_the_authors():
    """The sums and images after some scales, and what their generator is fed: each sum at the size of the next map."""
    variant = zoo.info(NAME)
    manifest = json.loads((GOLDENS / NAME / "manifest.json").read_text())
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / NAME / "golden.npz").items()}
    with without_storage():
        tokenizer = variant.build()
    state = variant.keys.convert(synthetic_checkpoint(manifest), tokenizer.state_dict(), NAME)
    assign(tokenizer, state)
    tokenizer.eval()
    codes, scales = golden["codes"], variant.spec.scales
    fed = []
    for number, end in enumerate(ends(scales)):
        total = tokenizer.embed(codes[:, :, :end])
        torch.testing.assert_close(total[:, :4], golden["quantized_scale"][:, number], atol=1e-5, rtol=0)
        if end < 680:
            fed.append(F.adaptive_avg_pool2d(total, scales[number + 1])[:, :8].flatten(2))
    torch.testing.assert_close(torch.cat(fed, dim=2).mT, golden["var_input"], atol=1e-5, rtol=0)
    for number in (4, 7):
        expected = (golden[f"reconstruction_scales{number}"] / 2 + 0.5).clamp(0, 1)
        difference = (tokenizer.decode(codes, num_scales=number) - expected).abs().max()
        assert difference < 3e-4  # the golden is rounded to 2^-11
