"""Codes as images."""

import numpy as np
import torch

from zoo.pictures.codes import code_image


def test_equal_codes_have_equal_colours_and_others_have_not():
    pixels = np.asarray(code_image(torch.tensor([[[0, 1], [1, 4095]]])))
    assert (pixels[0, 1] == pixels[1, 0]).all()
    assert len({tuple(color) for color in pixels.reshape(-1, 4).tolist()}) == 3


def test_a_line_of_codes_is_broken_like_text():
    image = code_image(torch.arange(59)[None])
    pixels = np.asarray(image)
    assert image.width > image.height
    assert (pixels[..., 3] == 255).sum() == 59
    assert (pixels[1, 0] == np.asarray(code_image(torch.tensor([[image.width]])))[0, 0]).all()


def test_codebooks_lie_below_one_another_in_every_line():
    codes = torch.stack([torch.zeros(40, dtype=torch.int64), torch.ones(40, dtype=torch.int64)])
    pixels = np.asarray(code_image(codes))
    assert (pixels[0] == pixels[0, 0]).all() and (pixels[1] == pixels[1, 0]).all()
    assert (pixels[0, 0] != pixels[1, 0]).any()
    assert (pixels[2, :, 3] == 0).all()  # between two lines


def test_a_clip_has_a_grid_for_each_step_in_time():
    image = code_image(torch.zeros(1, 9, 16, 12, dtype=torch.int64))
    assert image.size == (3 * 12 + 2, 3 * 16 + 2)
