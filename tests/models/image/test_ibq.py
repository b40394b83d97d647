"""IBQ and Emu3.5 against a plain computation from the published keys, at a small width."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_taming import PlainTaming, image, published_shapes, write_files
from zoo.facts import num_parameters
from zoo.models.image.ibq import MULTIPLIERS
from zoo.parity import parity, synthetic_checkpoint

WIDTH, NUM_BLOCKS, DIM, ROWS = 32, 2, 8, 300


def register_small(like: str) -> str:
    like = zoo.info(like)
    zoo.register(
        "ibq-small",
        like.builder,
        spec=replace(like.spec, name="ibq-small", codebook_sizes=(ROWS,)),
        config={"width": WIDTH, "num_blocks": NUM_BLOCKS, "dim": DIM},
        keys=like.keys,
        card=like.card,
    )
    return "ibq-small"


def write_golden(folder, size: tuple[int, int], batch: int, seed: int, *, averaged: bool):
    shapes = published_shapes(WIDTH, MULTIPLIERS, num_blocks=NUM_BLOCKS, neck=(DIM, DIM), dim=(DIM, DIM))
    shapes["quantize.embedding.weight"] = [ROWS, DIM]
    raw = {key: {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()}
    raw["quant_conv.weight"]["std"] = 1.0  # so that codes are diverse
    average = {"model_ema." + key.replace(".", ""): entry for key, entry in raw.items()} if averaged else {}
    manifest = {"tensors": raw | average, "layout": ["state_dict"] if averaged else [], "seed": seed}
    state = synthetic_checkpoint(manifest)
    if averaged:  # the file holds both, and only the averages count
        state = {key: state["state_dict"]["model_ema." + key.replace(".", "")] for key in raw}
    plain, rows = PlainTaming(state), state["quantize.embedding.weight"]
    x = image(size, batch, seed)
    latent = plain.encode(x)
    codes = torch.einsum("bchw,nc->bnhw", latent, rows).softmax(1).argmax(1)
    quantized = rows[codes].movedim(-1, 1)
    arrays = {"input": x, "latent": latent, "codes": codes, "quantized": quantized}
    return write_files(folder, manifest, {**arrays, "reconstruction": plain.decode(quantized)})


@pytest.fixture(autouse=True)
def registry_left_as_found(registrations):
    pass


@pytest.mark.parametrize(("like", "averaged"), [("ibq-1024", True), ("emu3.5-ibq", False)])
@pytest.mark.parametrize(("size", "batch", "seed"), [((64, 64), 1, 0), ((48, 80), 3, 7)])
def test_small_network_computes_what_its_description_says(tmp_path, like, averaged, size, batch, seed):
    report = parity(register_small(like), *write_golden(tmp_path, size, batch, seed, averaged=averaged))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report


@pytest.mark.parametrize(("name", "width"), [("ibq-16384", 128), ("emu3.5-ibq", 256)])
def test_the_published_file_holds_what_the_description_lists(name, width):
    tensors = json.loads((GOLDENS / name / "manifest.json").read_text())["tensors"]
    listed = {key: entry["shape"] for key, entry in tensors.items() if not key.startswith(("model_ema.", "quantize."))}
    assert listed == published_shapes(width, MULTIPLIERS, num_blocks=4)


@pytest.mark.parametrize(("name", "millions"), [("ibq-16384", 110.97), ("ibq-262144", 173.9), ("emu3.5-ibq", 455.34)])
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_code_is_the_row_of_the_largest_product_and_not_the_nearest():
    tokenizer = zoo.create("ibq-1024", small=True).eval()
    with torch.no_grad():
        tokenizer.quantizer.codebook.zero_()
        tokenizer.quantizer.codebook[3, 0], tokenizer.quantizer.codebook[5, 0] = 1.0, 10.0
    latent = torch.zeros(1, 16, 1, 1)
    latent[0, 0] = 1.0
    assert tokenizer.quantize(latent).item() == 5


def test_emus_images_get_the_area_of_the_reference():
    with np.load(GOLDENS / "emu3.5-ibq" / "golden.npz") as golden:
        cases = golden["smart_resize_cases"].tolist()
    tokenizer = zoo.create("emu3.5-ibq", small=True)
    for width, height, area, wanted_width, wanted_height in cases:
        assert tokenizer.target_size(height, width, math.isqrt(area)) == (wanted_height, wanted_width)


@pytest.mark.parametrize(("size", "expected"), [((300, 200), (64, 96)), ((90, 900), (256, 32)), ((8, 900), (848, 16))])
def test_emus_images_are_resized_bicubically_and_not_cropped(size, expected):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), dtype=np.uint8))
    x = zoo.create("emu3.5-ibq", small=True).preprocess(picture, resolution=80)
    pixels = np.asarray(picture.resize(tuple(reversed(x.shape[2:])), Image.Resampling.BICUBIC)) / 255
    assert x.shape[2] % 16 == x.shape[3] % 16 == 0
    assert torch.allclose(x[0].movedim(0, -1), torch.from_numpy(pixels).float())
    assert tuple(x.shape[2:]) == expected
