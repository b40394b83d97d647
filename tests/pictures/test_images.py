"""Images for figures keep their pixels and their shape."""

import pytest
import torch
from PIL import Image

from zoo.pictures.images import fitted, image_grid, shrunk, still_indices, to_image


def test_values_outside_the_range_are_clamped():
    image = to_image(torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 2, 4))
    assert image.size == (4, 2)
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_a_small_image_is_enlarged_to_whole_squares():
    image = to_image(torch.rand(3, 3, 5))
    large = fitted(image, 23)
    assert large.size == (20, 12)
    assert all(large.getpixel((x, y)) == image.getpixel((x // 4, y // 4)) for x in range(20) for y in range(12))


@pytest.mark.parametrize("function", [fitted, shrunk])
def test_a_large_image_is_shrunk_in_its_proportions(function):
    assert function(Image.new("RGB", (900, 700)), 512).size == (512, 398)


def test_an_image_that_fits_is_not_shrunk():
    image = to_image(torch.rand(3, 8, 8))
    assert shrunk(image, 8) is image


def test_a_very_long_image_keeps_a_pixel():
    assert shrunk(Image.new("RGB", (5000, 2)), 100).size == (100, 1)


def test_a_grid_has_a_gap_between_images():
    colors = [["red", "lime"], ["blue", "white"]]
    grid = image_grid([[Image.new("RGB", (6, 5), color) for color in row] for row in colors])
    assert grid.size == (16, 14)
    assert [grid.getpixel(place) for place in ((0, 0), (10, 0), (0, 9), (10, 9))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    assert grid.getpixel((7, 0)) == grid.getpixel((0, 6)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("frames", "count", "indices"), [(33, 4, [0, 11, 21, 32]), (5, 3, [0, 2, 4]), (2, 4, [0, 1]), (1, 4, [0])]
)
def test_stills_go_from_the_first_frame_to_the_last(frames, count, indices):
    assert still_indices(frames, count) == indices
