"""Networks that start as a transform code."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import zoo
from tests.support.media import write_pictures
from zoo.trainers.transform_code import fit_bases, fit_code, lloyd, recorded, set_transform, start


@pytest.fixture(scope="module")
def images():
    """Four pictures `[4, 3, 256, 256]`, with detail of several sizes."""
    random = torch.Generator().manual_seed(0)
    pictures = torch.full((4, 3, 256, 256), 0.5)
    for side in (4, 16, 64, 256):
        detail = torch.rand(4, 3, side, side, generator=random) - 0.5
        pictures += 0.5 * side**-0.5 * functional.interpolate(detail, size=256, mode="bilinear")
    return pictures


@pytest.fixture(scope="module")
def started(images):
    """A network that computes the transform, its bases and its code."""
    torch.manual_seed(0)
    tokenizer = zoo.info("wetok-nano").build().eval()
    bases = fit_bases(images, 4, 20, np.random.default_rng(0))
    code = fit_code(bases[-1], images, 64)
    set_transform(tokenizer, bases, code, images)
    return tokenizer, code


def test_the_bits_are_those_of_nearest_levels(started, images):
    _, code = started
    assert sum(code.bits) == 64 and max(code.bits) <= 4
    signs = code.signs(images)
    assert signs.shape == (4, 64, 16, 16) and set(signs.unique().tolist()) == {-1.0, 1.0}
    first = code.basis.coefficients(images, 1)[0, 0, 0, 0]
    gray = sum(int(sign > 0) << bit for bit, sign in enumerate(signs[0, : code.bits[0], 0, 0]))
    level = int((code.thresholds[0] < first).sum())
    assert gray == level ^ (level >> 1)


def test_more_levels_have_less_error():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    (one, error), (four, smaller) = lloyd(values, 1), lloyd(values, 2)
    assert len(one) == 1 and len(four) == 3
    # Max 1960: the best quantizers of a normal variable with 2 and 4 levels
    assert error == pytest.approx(0.3634, rel=0.05) and smaller == pytest.approx(0.1175, rel=0.08)


@torch.no_grad()
def test_the_encoder_computes_the_coefficients(started, images):
    tokenizer, code = started
    count = len(code.bits)
    expected = code.basis.coefficients(images, count) * code.basis.gains[:count, None, None]
    found = recorded(tokenizer.encoder.levels[-1], tokenizer.encoder, images * 2 - 1)[:, 1 : count + 1]
    assert (
        float((found - expected).square().mean() / expected.square().mean()) < 0.01
    )  # 11 of 12 coefficients at stride 2


@torch.no_grad()
def test_the_decoder_inverts_the_transform(started, images):
    tokenizer, code = started
    basis, decoder = code.basis, tokenizer.decoder
    coefficients = basis.coefficients(images, 95)

    def exact(module, arguments, output):
        result = torch.zeros_like(output)
        result[:, 0] = 20.0
        result[:, 1:96] = coefficients * basis.gains[:95, None, None]
        return result

    handle = decoder.levels[-1].register_forward_hook(exact)
    decoded = decoder(code.signs(images)) / 2 + 0.5
    handle.remove()
    error = (decoded - images).square().mean()
    assert float(error / images.var()) < 0.05  # the norms only know their mean statistics


def test_a_start_is_a_file_that_loads_and_goes_on(tmp_path, capsys):
    pictures = write_pictures(tmp_path / "pictures", {"train": 3}, coarse=(9, 8), size=(288, 256))
    start("wetok-nano", pictures, tmp_path / "start.safetensors", seconds=3)
    assert "bits of the coefficients: " in capsys.readouterr().out
    tokenizer = zoo.load("wetok-nano", weights=tmp_path / "start.safetensors")
    image = tokenizer.preprocess(next(pictures.rglob("*.png")), resolution=256)
    assert tokenizer.encode(image).shape == (1, 8, 16, 16)


@pytest.mark.parametrize("name", ["fqgan-nano", "wetok-imagenet-f16"])
def test_other_networks_are_refused(name, tmp_path):
    with pytest.raises(zoo.InputError, match=f"{name} cannot start as a transform"):
        start(name, tmp_path, tmp_path / "start.safetensors", seconds=1)
