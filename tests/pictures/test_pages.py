"""Pages for comparison: their size, and what is where on them."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.media import helix
from zoo.pictures.pages import Panel, clip_page, image_page, sound_page, structure_page


def rendered(figure) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return np.asarray(Image.open(stream).convert("RGB"))


def test_images_are_drawn_pixel_by_pixel():
    image = torch.rand(3, 16, 16)
    page = rendered(image_page("title", "subtitle", [Panel("original", image), Panel("copy", image)]))
    scale = 512 // 16
    shown = page[92 : 92 + 512, 24 : 24 + 512][scale // 2 :: scale, scale // 2 :: scale]
    assert np.abs(shown / 255 - image.permute(1, 2, 0).numpy()).max() <= 0.51 / 255
    assert page.shape == (92 + 512 + 24, 1088, 3)


def test_notes_have_room_below_the_images():
    image = torch.zeros(3, 16, 16)
    plain, noted = (rendered(image_page("t", "s", [Panel("a", image, note)] * 2)) for note in ("", "PSNR 20 dB"))
    assert len(noted) == len(plain) + 24
    assert (noted[-48:-5] < 200).any()


def test_the_first_and_the_last_frame_of_a_clip_are_shown():
    shades = torch.linspace(0.1, 0.9, 9)[None, :, None, None].expand(3, 9, 64, 64)
    page = rendered(clip_page("title", "subtitle", {"original": shades, "reconstruction": 1 - shades}))
    above, below = page[92 + 128], page[92 + 256 + 24 + 128]
    for row, values in ((above, (0.1, 0.9)), (below, (0.9, 0.1))):
        first, last = row[24 + 128, 0] / 255, row[24 + 3 * 260 + 128, 0] / 255
        assert (first, last) == pytest.approx(values, abs=0.01)


def test_sounds_share_the_scale_of_the_first():
    noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    page = rendered(sound_page("title", "subtitle", {"original": noise, "reconstruction": noise / 1000}, 8000))
    spectrograms = page[195:450, 80:512].astype(float), page[195:450, 536:968].astype(float)
    assert spectrograms[0].mean() > spectrograms[1].mean() + 30


def test_any_number_of_sounds_stand_in_a_row():
    tone = torch.sin(torch.arange(8000) * 0.3)[None] * 0.1
    page = rendered(sound_page("title", "subtitle", {str(number): tone for number in range(5)}, 8000))
    assert page.shape[1] == 1088
    columns = [page[195:450, 80 + 182 * number : 235 + 182 * number] for number in range(5)]
    assert all(np.array_equal(column, columns[0]) for column in columns[1:])


def test_a_protein_with_absent_residues_is_drawn():
    original = helix(30)
    original[5:9] = torch.nan
    page = rendered(structure_page("title", "subtitle", original, helix(30)))
    assert page.shape == (580, 1088, 3)
    assert (page[100:520, 30:460] != 255).any()  # the traces
    assert (page[100:520, 540:960] != 255).any()  # the map


def test_matplotlib_is_imported_only_to_draw():
    program = "import sys, zoo.pictures.pages, zoo.pictures.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
