"""Pyramids of scales, the first few of which are a coarser code: what all such tokenizers have from the base."""

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.support.cli import error_line, run
from tests.support.pyramid import HIGH, SCALES, WIDE, Pyramid, pyramid_spec
from zoo.codes import load_codes
from zoo.media import read_image

SHAPES = {"other_scales": (WIDE, HIGH)}  # of 8x16 and 16x8, with eleven codes each


def pyramid(**facts) -> Pyramid:
    torch.manual_seed(0)
    return Pyramid(pyramid_spec(**facts)).eval()


def image(height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("facts", [{}, SHAPES])
def test_a_tokenizer_with_scales_keeps_the_contracts(facts):
    zoo.testing.check(pyramid(**facts))


@pytest.mark.parametrize(("number", "positions"), [(1, 1), (2, 5), (3, 21)])
def test_the_first_scales_are_those_of_all(number, positions):
    tokenizer = pyramid()
    every, codes = tokenizer.encode(image()), tokenizer.encode(image(), num_scales=number)
    assert torch.equal(codes, every[:, :, :positions])
    assert torch.equal(tokenizer.decode(codes), tokenizer.decode(every, num_scales=number))
    assert tokenizer.embed(codes).shape == (2, 4, 4, 4)


def test_more_scales_come_nearer():
    tokenizer = pyramid()
    latent = tokenizer.encoder(image()).detach()
    errors = [
        float((tokenizer.embed(tokenizer.encode(image(), num_scales=number)) - latent).square().mean().detach())
        for number in (1, 2, 3)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("number", [0, 4, True, 2.0, "all"])
def test_a_number_of_scales_that_there_is_not_is_refused(number):
    tokenizer = pyramid()
    with pytest.raises(zoo.InputError, match=f"expected num_scales from 1 to 3, got {number}"):
        tokenizer.encode(image(), num_scales=number)
    with pytest.raises(zoo.InputError, match=f"expected num_scales from 1 to 2, got {number}"):
        tokenizer.decode(tokenizer.encode(image(), num_scales=2), num_scales=number)


def test_a_tokenizer_without_scales_has_no_such_option():
    tokenizer = zoo.create("llamagen-vq-16", small=True)
    with pytest.raises(zoo.InputError, match="encode has no option 'num_scales'; it takes: none"):
        tokenizer.encode(image(), num_scales=1)
    with pytest.raises(zoo.InputError, match="decode has no option 'num_scales'"):
        tokenizer.decode(torch.zeros(1, 1, 2, 2, dtype=torch.int64), num_scales=1)


@pytest.mark.parametrize("positions", [2, 20, 22])
def test_codes_that_are_not_whole_scales_are_refused(positions):
    codes = torch.zeros(1, 1, positions, dtype=torch.int64)
    with pytest.raises(zoo.InputError, match=f"pyramid takes 1, 5, 21 codes per image, got {positions}"):
        pyramid().decode(codes)


def test_the_spec_counts_the_codes_of_all_scales():
    spec = pyramid_spec(**SHAPES)
    assert spec.sizes == ((16, 16), (8, 16), (16, 8))
    assert spec.grid_axes == ("positions",)
    assert (spec.grid((16, 16)), spec.grid((8, 16))) == ((21,), (11,))
    assert (spec.tokens((16, 16)), spec.bits((16, 16))) == (21, 105)
    assert spec.scales_of((8, 16)) == WIDE and spec.scales_of_codes(11, (16, 8)) == HIGH
    with pytest.raises(zoo.InputError, match="no scales for 8x8"):
        spec.grid((8, 8))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"variable_size": True}, "scales are for images of given sizes"),
        ({"resolution": (16, 8)}, r"expected scales that end in the grid \(4, 2\), got \(4, 4\)"),
        ({"scales": (), "other_scales": (WIDE,)}, "expected scales beside other_scales, got none"),
        ({"other_scales": (WIDE, WIDE)}, "one other size each"),
        ({"other_scales": (SCALES,)}, "one other size each"),
        ({"residual": True}, "expected one of residual, tail_drop and scales, got residual and scales"),
        ({"scales": ((1, 1), (10**7, 2), (4, 4))}, r"from coarse to fine, got \(10000000, 2\) before \(4, 4\)"),
        ({"scales": ((1, 1), (4, 4, 4))}, "expected scales as a sequence"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(facts, message):
    with pytest.raises(zoo.InputError, match=message):
        pyramid_spec(**facts)


# Several sizes


def test_codes_of_two_sizes_say_which_with_size():
    tokenizer = pyramid(**SHAPES)
    wide = image(8, 16)
    codes = tokenizer.encode(wide)
    assert codes.shape == (2, 1, 11)
    assert tokenizer.decode(codes, size=(8, 16)).shape == (2, 3, 8, 16)
    assert tokenizer.decode(codes, size=(16, 8)).shape == (2, 3, 16, 8)
    assert torch.equal(tokenizer.reconstruct(wide), tokenizer.decode(codes, size=[8, 16]))
    assert tokenizer.embed(codes, (8, 16)).shape == (2, 4, 2, 4)
    with pytest.raises(zoo.InputError, match=r"11 codes of pyramid may be of 8x16 or 16x8; give size=\(height, width"):
        tokenizer.decode(codes)


def test_without_a_size_codes_are_of_the_resolution_if_they_can_be():
    tokenizer = pyramid(**SHAPES)
    assert tokenizer.decode(tokenizer.encode(image(8, 16), num_scales=1)).shape == (2, 3, 16, 16)
    assert pyramid(other_scales=(WIDE,)).decode(torch.zeros(1, 1, 11, dtype=torch.int64)).shape == (1, 3, 8, 16)


def test_codes_that_the_size_does_not_have_are_refused():
    with pytest.raises(zoo.InputError, match="pyramid takes 1, 3, 11 codes per image, got 21"):
        pyramid(**SHAPES).decode(torch.zeros(1, 1, 21, dtype=torch.int64), size=(8, 16))


def test_an_image_of_another_size_is_refused():
    with pytest.raises(zoo.InputError, match=r"image of 16x16 or 2 other sizes \(spec.sizes\), got 8x8"):
        pyramid(**SHAPES).encode(image(8, 8))


@pytest.mark.parametrize(("height", "width", "size"), [(30, 70, (8, 16)), (70, 30, (16, 8)), (34, 40, (16, 16))])
def test_an_image_gets_the_size_whose_ratio_is_nearest(height, width, size):
    assert pyramid(**SHAPES).preprocess(torch.rand(3, height, width)).shape == (1, 3, *size)


def test_a_resolution_or_crop_that_there_is_not_is_refused():
    tokenizer = pyramid(**SHAPES)
    with pytest.raises(zoo.InputError, match="pyramid takes images of the resolutions 16, got 32"):
        tokenizer.preprocess(torch.rand(3, 40, 40), resolution=32)
    with pytest.raises(zoo.InputError, match="chooses the crop by the shape of the image"):
        tokenizer.preprocess(torch.rand(3, 40, 40), crop=16)


# Files


@pytest.fixture
def tiny_pyramid(tmp_path, registrations) -> zoo.Tokenizer:
    weights = tmp_path / "weights.safetensors"
    zoo.register("tiny-pyramid", Pyramid, spec=pyramid_spec("", **SHAPES), weights=str(weights), package="zoo")
    torch.manual_seed(0)
    tokenizer = zoo.create("tiny-pyramid").eval()
    save_file(tokenizer.state_dict(), weights)
    return tokenizer


@pytest.fixture
def picture(tmp_path, tiny_pyramid):
    path = tmp_path / "picture.png"
    tiny_pyramid.modality.write(path, image(8, 16)[0], tiny_pyramid.spec)
    return path


def test_a_code_file_keeps_how_many_scales_it_has(tiny_pyramid, picture, tmp_path):
    run("encode", "tiny-pyramid", picture, "--num-scales", 2, "--out", tmp_path / "codes")
    file = load_codes(tmp_path / "codes" / "picture.npz")
    assert (file.codes.shape, file.size, file.options) == ((1, 1, 3), (8, 16), {"num_scales": 2})
    file.check(tiny_pyramid.spec)
    run("decode", tmp_path / "codes", "--out", tmp_path / "decoded")
    assert read_image(tmp_path / "decoded" / "picture.png").shape == (3, 8, 16)


def test_reconstructing_counts_the_scales_in_use(tiny_pyramid, picture, tmp_path):
    (two,) = zoo.reconstruct_files(tiny_pyramid, [picture], tmp_path / "two", num_scales=2)
    (every,) = zoo.reconstruct_files(tiny_pyramid, [picture], tmp_path / "all")
    assert (two.codes_shape, two.figures.tokens, two.figures.bits) == ((1, 3), 3, 15)
    assert (every.codes_shape, every.figures.tokens) == ((1, 11), 11)


def test_the_command_names_an_option_that_a_tokenizer_does_not_have(tiny_pyramid, picture, tmp_path):
    result = run("encode", "tiny-pyramid", picture, "--num-tokens", 2, "--out", tmp_path, status=1)
    assert "tiny-pyramid.encode has no option 'num_tokens'; it takes: num_scales" in error_line(result)


def test_the_benchmark_has_a_point_for_some_numbers_of_scales(tiny_pyramid, picture, tmp_path):
    options = ("--no-baselines", "--metrics", "psnr", "--out", tmp_path / "out")
    (tmp_path / "square").mkdir()
    tiny_pyramid.modality.write(tmp_path / "square" / "a.png", image()[0], tiny_pyramid.spec)
    result = run("bench", "tiny-pyramid", "--data", tmp_path / "square", *options)
    assert all(f"tiny-pyramid, {number} scales" in result.stdout for number in (1, 2, 3))


def test_info_shows_the_scales(tiny_pyramid):
    shown = run("info", "tiny-pyramid").stdout
    assert "1 x 1, 2 x 2, 4 x 4" in shown and "of 2 other sizes" in shown
