"""A tokenizer from outside the project: an installed package adds it through the entry point group `zoo.tokenizers`."""

import os
import subprocess
import sys
import zipfile

import pytest

MODULE = '''
from torch import nn

import zoo
from zoo.quantizers import FSQ


class Patches(zoo.Tokenizer):
    """Images to one code of 125 for each 4x4 pixels."""

    def __init__(self, spec):
        super().__init__(spec)
        self.encoder = nn.Conv2d(3, 3, 4, stride=4)
        self.quantizer = FSQ((5, 5, 5))
        self.decoder = nn.ConvTranspose2d(3, 3, 4, stride=4)


def add():
    zoo.register(
        "patches-4",
        Patches,
        spec=zoo.TokenizerSpec(
            name="patches-4",
            modality="image",
            quantizer="fsq",
            codebook_sizes=(125,),
            downsample=(4, 4),
            channels=3,
            code_license="MIT",
            weights_license="MIT",
            paper="none",
            source="none",
        ),
        config={},
        card="patches",
    )
    zoo.alias("patches", "patches-4")


add()
'''

PROGRAM = """
import torch, zoo
assert "patches-4" in zoo.list_tokenizers(modality="image", quantizer="fsq")
tokenizer = zoo.create("patches").eval()
image = torch.rand(1, 3, 10, 7)
codes = tokenizer.encode(image)
assert codes.shape == (1, 1, 3, 2), codes.shape
assert tokenizer.decode(codes, size=(10, 7)).shape == image.shape
tokenizer.save_pretrained("saved")
assert torch.equal(zoo.load("saved").encode(image), codes)
try:
    zoo.load("patches")
except zoo.WeightsUnavailableError as error:
    print(error)
"""


@pytest.fixture
def site(tmp_path):
    """A folder with the tiny package installed in it by pip, from a wheel."""
    wheel = tmp_path / "zoo_patches-1.0-py3-none-any.whl"
    info = "zoo_patches-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zoo_patches.py", MODULE)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: zoo-patches\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[zoo.tokenizers]\npatches = zoo_patches\n")
        archive.writestr(f"{info}/RECORD", "")
    folder = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    subprocess.run([*pip, folder, wheel], check=True, capture_output=True)
    return folder


def run(site, *arguments):
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=site, check=True, capture_output=True, text=True
    ).stdout


def test_a_tokenizer_of_another_package_is_listed_created_saved_and_loaded(site):
    message = run(site, "-c", PROGRAM)
    assert "patches-4 has no weights on the Hub, and zoo_patches ships none" in message


def test_the_command_lists_it_as_well(site):
    assert "patches-4" in run(site, "-c", "from zoo.cli import main; main()", "list", "--modality", "image")
