"""VQGAN against a plain computation from the published keys, at a small width, and its goldens' other arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_taming import PlainTaming, image, published_shapes, write_files
from zoo.facts import num_parameters
from zoo.models.image.vqgan import checkpoint
from zoo.parity import parity, synthetic_checkpoint
from zoo.quantizers import GumbelVQ

WIDTH, MULTIPLIERS, DIM, ROWS = 32, (1, 2, 4), 4, 300
# Arguments of the network, those of `published_shapes`, and the quantizer.
CASES = {
    "taming": ({}, {}, "vq"),
    "gumbel": ({}, {}, "gumbel-vq"),
    "ldm": ({"attention": False}, {"attention": (False, False)}, "vq"),
    "ldm without attention": (
        {"attention": False, "middle_attention": False},
        {"attention": (False, False), "middle_attention": False},
        "vq",
    ),
}


def register_small(case: str) -> str:
    arguments, _, quantizer = CASES[case]
    like = zoo.info("vqgan-imagenet-f16-1024")
    codebook = "quantize.embed.weight" if quantizer == "gumbel-vq" else "quantize.embedding.weight"
    zoo.register(
        "vqgan-small",
        like.builder,
        spec=replace(like.spec, name="vqgan-small", quantizer=quantizer, codebook_sizes=(ROWS,), downsample=(4, 4)),
        config={"width": WIDTH, "multipliers": MULTIPLIERS, "neck": DIM, "dim": DIM, **arguments},
        keys=checkpoint(len(MULTIPLIERS), codebook),
        card=like.card,
    )
    return "vqgan-small"


def write_golden(folder, case: str, size: tuple[int, int], batch: int, seed: int):
    _, options, quantizer = CASES[case]
    shapes = published_shapes(WIDTH, MULTIPLIERS, neck=(DIM, DIM), dim=(DIM, DIM), **options)
    tensors = {key: {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()}
    tensors["quant_conv.weight"]["std"] = 1.0  # so that codes are diverse
    if quantizer == "gumbel-vq":
        tensors["quantize.proj.weight"] = {"shape": [ROWS, DIM, 1, 1], "dtype": "float32"}
        tensors["quantize.proj.bias"] = {"shape": [ROWS], "dtype": "float32"}
        tensors["quantize.embed.weight"] = {"shape": [ROWS, DIM], "dtype": "float32"}
    else:
        tensors["quantize.embedding.weight"] = {"shape": [ROWS, DIM], "dtype": "float32"}
    tensors["loss.discriminator.main.0.bias"] = {"shape": [64], "dtype": "float32"}
    manifest = {"tensors": tensors, "layout": ["state_dict"], "seed": seed}
    state = synthetic_checkpoint(manifest)["state_dict"]
    plain = PlainTaming(state)
    x = image(size, batch, seed)
    latent = plain.encode(x)
    if quantizer == "gumbel-vq":
        rows, codes = state["quantize.embed.weight"], plain.conv(latent, "quantize.proj").argmax(1)
    else:
        rows = state["quantize.embedding.weight"]
        codes = ((latent.movedim(1, -1)[..., None, :] - rows) ** 2).sum(-1).argmin(-1)
    assert len(codes.unique()) > 10
    quantized = rows[codes].movedim(-1, 1)
    arrays = {"input": x, "latent": latent, "codes": codes, "quantized": quantized}
    return write_files(folder, manifest, {**arrays, "reconstruction": plain.decode(quantized)})


@pytest.fixture(autouse=True)
def registry_left_as_found(registrations):
    pass


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("size", "batch", "seed"), [((32, 32), 1, 0), ((20, 44), 3, 7)])
def test_small_vqgan_computes_what_its_description_says(tmp_path, case, size, batch, seed):
    report = parity(register_small(case), *write_golden(tmp_path, case, size, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    report = parity(register_small("taming"), *write_golden(tmp_path, "taming", (32, 32), 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vqgan-imagenet-f16-16384", {"multipliers": (1, 1, 2, 2, 4)}),
        ("vqgan-gumbel-f8-8192", {"multipliers": (1, 1, 2, 4)}),
        ("ldm-vq-f4", {"multipliers": (1, 2, 4), "neck": (3, 3), "dim": (3, 3), "attention": (False, False)}),
        ("ldm-vq-f8", {"multipliers": (1, 2, 2, 4), "neck": (4, 4), "dim": (4, 4)}),
    ],
)
def test_the_published_file_holds_what_the_description_lists(name, options):
    tensors = json.loads((GOLDENS / name / "manifest.json").read_text())["tensors"]
    listed = {key: entry["shape"] for key, entry in tensors.items() if not key.startswith("quantize.")}
    assert listed == published_shapes(128, **options)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("vqgan-imagenet-f16-16384", 76.1),
        ("vqgan-imagenet-f16-1024", 72.1),
        ("vqgan-gumbel-f8-8192", 69.0),
        ("ldm-vq-f4", 55.3),
        ("ldm-vq-f8", 67.7),
    ],
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(millions, abs=0.15)


@pytest.fixture(scope="module")
def gumbel():
    """The published Gumbel quantizer with synthetic weights, and the golden's arrays as tensors."""
    folder = GOLDENS / "vqgan-gumbel-f8-8192"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tensors"] = {key: entry for key, entry in manifest["tensors"].items() if key.startswith("quantize.")}
    state = synthetic_checkpoint(manifest)["state_dict"]
    quantizer = GumbelVQ(256, 8192)
    quantizer.load_state_dict(
        {
            "project.weight": state["quantize.proj.weight"][:, :, 0, 0],
            "project.bias": state["quantize.proj.bias"],
            "codebook": state["quantize.embed.weight"],
        }
    )
    with np.load(folder / "golden.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return quantizer, arrays


def test_the_divergence_of_the_gumbel_variant_is_the_references(gumbel):
    quantizer, golden = gumbel
    loss = quantizer.train()(golden["latent"].movedim(1, -1)).losses["kl_loss"]
    assert 1e-8 * loss.item() == pytest.approx(golden["kl_loss"].item(), rel=1e-4)


def test_the_gumbel_variant_adds_the_noise_of_the_reference(gumbel):
    quantizer, golden = gumbel
    logits = quantizer.project(golden["latent"].movedim(1, -1)).movedim(-1, 1)
    assert torch.allclose(logits[:, :64], golden["logits_head"], atol=1e-4)
    draws = np.random.RandomState(7).standard_exponential(logits.numel()).astype(np.float32).reshape(logits.shape)
    noisy = (logits - torch.from_numpy(draws).log()).argmax(1)
    assert (noisy == golden["codes_sampled"]).float().mean() > 0.99
    assert (golden["codes"] == golden["codes_sampled"]).float().mean() < 0.9


def test_the_gumbel_variant_encodes_without_noise():
    tokenizer = zoo.create("vqgan-gumbel-f8-8192", small=True).eval()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(tokenizer.encode(x), tokenizer.encode(x))


def test_chameleons_images_are_resized_by_lanczos():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    expected = np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS)) / 255
    x = zoo.create("chameleon-vqgan", small=True).preprocess(picture, resolution=256)
    assert torch.allclose(x[0].movedim(0, -1), torch.from_numpy(expected).float())


def test_images_are_resized_from_the_four_nearest_pixels():
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    pixels[::4, ::4] = 200  # of each 4x4 pixels, the two inner ones of a row are looked at
    x = zoo.create("vqgan-imagenet-f16-1024", small=True).preprocess(Image.fromarray(pixels), resolution=128)
    assert x.abs().max() == 0
