"""Infinity: the scales of many sizes, bits of sign vectors, and the authors' resizing."""

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

NAME = "infinity-vae-d32"


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return zoo.create(NAME, small=True).eval()


def test_it_has_the_published_number_of_parameters_and_tokens():
    variant = zoo.info(NAME)
    assert num_parameters(variant) / 1e6 == pytest.approx(45.03 + 65.09, abs=0.01)
    tokens = [variant.spec.tokens((side, side)) for side in (256, 512, 1024)]
    assert tokens == [521, 2521, 10521]
    assert (variant.spec.bits((256, 256)), variant.spec.bits((1024, 1024))) == (16672, 336672)


@pytest.mark.parametrize(
    ("size", "scales"),
    [
        ((320, 256), "1x1 2x2 3x3 5x4 10x8 15x12 20x16"),
        ((256, 320), "1x1 2x2 3x3 4x5 8x10 12x15 16x20"),
        ((368, 736), "1x1 2x2 2x4 3x6 5x10 8x16 11x22 15x30 19x38 23x46"),
        ((1024, 1024), "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64"),
    ],
)
def test_the_scales_follow_from_the_size(size, scales):
    assert " ".join(f"{height}x{width}" for height, width in zoo.info(NAME).spec.scales_of(size)) == scales


def test_every_number_of_codes_is_of_one_size_or_of_one_and_the_same_on_its_side():
    sizes: dict[int, set] = {}
    spec = zoo.info(NAME).spec
    for size in spec.sizes:
        sizes.setdefault(spec.tokens(size), set()).add(tuple(sorted(size)))
    assert len(spec.sizes) == 45
    assert all(len(found) == 1 for found in sizes.values())


@pytest.mark.parametrize(("name", "layout"), [(NAME, (1, 1, 521)), ("infinity-vae-d64", (1, 64, 521))])
def test_too_many_bits_for_an_integer_are_codes_of_one_bit(name, layout):
    tokenizer = zoo.create(name, small=True).eval()
    codes = tokenizer.encode(torch.rand(1, 3, 256, 256))
    assert codes.shape == layout
    embedded = tokenizer.embed(codes[:, :, :1])
    signs = embedded[0, :, 0, 0] > 0
    if layout[1] == 64:
        assert torch.equal(codes[0, :, 0] == 1, signs)
    else:
        assert int(codes[0, 0, 0]) == int("".join("01"[int(sign)] for sign in signs), 2)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(1, 16, 16))


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [((400, 300), None, (240, 320)), ((300, 400), 512, (576, 432)), ((90, 100), None, (256, 256))],
)
def test_images_cover_the_nearest_shape_with_lanczos_and_their_middle_is_taken(tokenizer, size, resolution, expected):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    height, width = expected
    factor = max(height / size[1], width / size[0])
    larger = (max(width, int(size[0] * factor + 1e-9)), max(height, int(size[1] * factor + 1e-9)))
    left, top = (larger[0] - width) // 2, (larger[1] - height) // 2
    cut = picture.resize(larger, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    image = tokenizer.preprocess(picture, resolution=resolution)
    assert torch.allclose(image[0].movedim(0, -1), torch.from_numpy(np.asarray(cut, dtype=np.float32) / 255))


@pytest.mark.slow
@torch.inference_mode()
def test_the_first_scales_and_bits_are_those_of_the_authors():
    variant = zoo.info(NAME)
    manifest = json.loads((GOLDENS / NAME / "manifest.json").read_text())
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / NAME / "golden.npz").items()}
    with without_storage():
        tokenizer = variant.build()
    assign(tokenizer, variant.keys.convert(synthetic_checkpoint(manifest), tokenizer.state_dict(), NAME))
    tokenizer.eval()
    codes, scales = golden["codes"], variant.spec.scales
    assert golden["scales"].tolist() == [list(grid) for grid in scales]
    bits = (codes[:, 0, :, None] >> torch.arange(31, -1, -1)) & 1
    assert torch.equal(bits, golden["bits"].long())
    sums = [tokenizer.embed(codes[:, :, :end]) for end in ends(scales)]
    for number, total in enumerate(sums):
        torch.testing.assert_close(total[:, :4], golden["quantized_scale"][:, number], atol=1e-6, rtol=0)
    for number, channels in ((1, 32), (5, 4)):
        fed = F.adaptive_avg_pool2d(sums[number - 1], scales[number])[:, :channels]
        torch.testing.assert_close(fed, golden[f"var_input_scale{number}"], atol=1e-6, rtol=0)
    expected = (golden["reconstruction_scales4"] / 2 + 0.5).clamp(0, 1)
    assert (tokenizer.decode(codes, num_scales=4) - expected).abs().max() < 3e-4  # the golden is rounded to 2^-11
