"""Tokenizers from outside the project: installed packages with entry points in the group `zoo.tokenizers`."""

import io
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save

from tests.support.hub_server import HubServer

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


PATCHES = zoo.register(
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
)
zoo.alias("patches", "patches-4")
'''

# What a package has beside the variant without weights: variants with weights of every origin.
ORIGINS = """
zoo.register(zoo.replace(PATCHES, "patches-shipped", weights="weights/patches.safetensors", card="patches"))
zoo.register(zoo.replace(PATCHES, "patches-hub", hub=zoo.HubSource("maker/patches", "model.safetensors")))
KEYS = KeyMap(("enc.", "encoder."), ("dec.", "decoder."), layout=("state_dict",))
zoo.register(zoo.replace(PATCHES, "patches-converted", hub=zoo.HubSource("maker/patches", "patches.ckpt"), keys=KEYS))
WETOK = zoo.info("wetok-nano")
zoo.register(zoo.replace(WETOK, "wetok-of-ours", weights="weights/wetok.safetensors", package=__name__))
zoo.register(zoo.replace(WETOK, "wetok-on-the-hub", hub=zoo.HubSource("maker/wetok", "model.safetensors")))
"""

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


def tensors() -> dict[str, torch.Tensor]:
    """Weights of `Patches`."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"{part}.{name}": torch.randn(shape, generator=generator)
        for part in ("encoder", "decoder")
        for name, shape in (("weight", (3, 3, 4, 4)), ("bias", (3,)))
    }


def install(folder, package: str, files: dict[str, str | bytes]):
    """A folder with the package installed in it by pip, from a wheel."""
    wheel = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", f"[zoo.tokenizers]\npatches = {package}\n")
        archive.writestr(f"{info}/RECORD", "")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    subprocess.run([*pip, site, wheel], check=True, capture_output=True)
    return site


@pytest.fixture(scope="module")
def module_site(tmp_path_factory):
    """A plug-in that is a single module."""
    return install(tmp_path_factory.mktemp("module"), "zoo_patches", {"zoo_patches.py": MODULE})


@pytest.fixture(scope="module")
def package_site(tmp_path_factory):
    """A plug-in that is a package, with weights and a card."""
    files = {
        "zoo_patterns/__init__.py": "from zoo.checkpoints import KeyMap\n" + MODULE + ORIGINS,
        "zoo_patterns/weights/patches.safetensors": save(tensors()),
        "zoo_patterns/cards/patches.md": "---\nlicense: mit\n---\n# Patches\n",
    }
    return install(tmp_path_factory.mktemp("package"), "zoo_patterns", files)


@pytest.fixture
def hub():
    """A Hub with the plug-in's files, in the layout of `save_pretrained` and in one of the maker's own."""
    checkpoint = io.BytesIO()
    short = {"encoder": "enc", "decoder": "dec"}
    renamed = {f"{short[part]}.{name}": value for key, value in tensors().items() for part, name in [key.split(".")]}
    torch.save({"state_dict": renamed}, checkpoint)
    with HubServer() as hub:
        hub.add("maker/patches", {"model.safetensors": save(tensors()), "patches.ckpt": checkpoint.getvalue()})
        yield hub


def environment(hub, home) -> dict[str, str]:
    """What points a process at the Hub on loopback, with an empty cache."""
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}


def run(site, *arguments, **variables):
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    whole = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"} | variables
    return subprocess.run(
        [sys.executable, *arguments], env=whole, cwd=site, check=True, capture_output=True, text=True
    ).stdout


def weights_line(site, name: str) -> str:
    """The line on weights that `zoo info` prints."""
    lines = run(site, "-c", "from zoo.cli import main; main()", "info", name).splitlines()
    (line,) = [line for line in lines if line.startswith("weights ")]
    return line.removeprefix("weights").strip()


def test_a_tokenizer_of_another_package_is_listed_created_saved_and_loaded(module_site):
    message = run(module_site, "-c", PROGRAM)
    assert "patches-4 has no weights on the Hub, and zoo_patches ships none" in message


def test_the_command_lists_it_as_well(module_site):
    assert "patches-4" in run(module_site, "-c", "from zoo.cli import main; main()", "list", "--modality", "image")


def test_a_plugin_that_cannot_be_imported_is_named_and_keeps_nothing_else_from_working(tmp_path):
    site = install(tmp_path, "zoo_broken", {"zoo_broken.py": "import a_package_that_is_missing"})
    program = """
import warnings, zoo
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    names = zoo.list_tokenizers()
print(len(names) > 20, [str(warning.message) for warning in caught if "plug-in" in str(warning.message)])
"""
    printed = run(site, "-c", program)
    assert printed.startswith('True ["the plug-in patches (zoo_broken) is left out')
    assert "No module named 'a_package_that_is_missing'" in printed


def test_a_single_module_ships_weights_and_a_card_beside_it(tmp_path):
    addition = 'zoo.register(zoo.replace(PATCHES, "beside", weights="patches.safetensors", card="patches"))\n'
    files = {
        "zoo_beside.py": MODULE + addition,
        "patches.safetensors": save(tensors()),
        "cards/patches.md": "# Patches\n",
    }
    program = "import zoo; print(zoo.load('beside').encoder.bias.tolist(), zoo.info('beside').card_file.read_text())"
    printed = run(install(tmp_path, "zoo_beside", files), "-c", program)
    assert printed.strip() == f"{tensors()['encoder.bias'].tolist()} # Patches"


def test_a_package_ships_weights_and_a_card_inside_it(package_site):
    program = "import zoo; t = zoo.load('patches-shipped'); print(t.encoder.bias.tolist(), t.card_file.read_text())"
    printed = run(package_site, "-c", program)
    assert printed.startswith(str(tensors()["encoder.bias"].tolist()))
    assert printed.endswith("# Patches\n\n")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("patches-4", "none published"),
        ("patches-shipped", "shipped with zoo_patterns"),
        ("patches-hub", "maker/patches: model.safetensors on the Hub"),
        ("patches-converted", "maker/patches: patches.ckpt on the Hub"),
        ("wetok-of-ours", "shipped with zoo_patterns"),
    ],
)
def test_info_says_where_the_weights_are(package_site, name, where):
    assert weights_line(package_site, name) == where


@pytest.mark.parametrize("name", ["patches-hub", "patches-converted"])
def test_weights_on_the_hub_are_loaded_from_the_plugins_own_repository(package_site, hub, tmp_path, name):
    program = f"import zoo; print(zoo.load({name!r}).encoder.bias.tolist())"
    assert run(package_site, "-c", program, **environment(hub, tmp_path)).strip() == str(
        tensors()["encoder.bias"].tolist()
    )
    assert hub.requests
    assert not [request for request in hub.requests if "tokenizer-zoo/" in request]


@pytest.mark.parametrize("name", ["patches-4", "wetok-on-the-hub", "wetok-of-ours"])
def test_a_plugin_is_never_looked_up_in_the_namespace_of_zoo(package_site, hub, tmp_path, name):
    program = f"""
import zoo
try:
    zoo.load({name!r})
except zoo.WeightsUnavailableError as error:
    print(error)
"""
    assert run(package_site, "-c", program, **environment(hub, tmp_path))
    assert not [request for request in hub.requests if "tokenizer-zoo/" in request]


def test_a_name_of_zoo_is_not_a_plugins_to_take(module_site):
    program = """
import zoo, zoo_patches
for take in (
    lambda: zoo.register(zoo.replace(zoo_patches.PATCHES, "cosmos-di-8x8")),
    lambda: zoo.alias("wetok", "patches-4"),
):
    try:
        take()
    except ValueError as error:
        print(error)
"""
    first, second = run(module_site, "-c", program).splitlines()
    assert first == "tokenizer 'cosmos-di-8x8' is registered twice"
    assert second == "tokenizer 'wetok' is registered twice"


def test_a_plugin_keeps_the_contracts(module_site):
    assert run(module_site, "-c", "import zoo; print(zoo.testing.check('patches-4'))").strip() == "None"
