"""LlamaGen VQ against a plain computation from the published keys, at a small configuration."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from tests.support.plain_llamagen import NECK, PlainLlamaGen, Shapes
from zoo.facts import num_parameters
from zoo.parity import parity, synthetic_checkpoint
from zoo.registry import replace as replace_variant

WIDTH, MULTIPLIERS, DIM, ROWS = 32, (1, 2, 4), 4, 300


def published_shapes() -> Shapes:
    shapes = Shapes()
    shapes.trunk(WIDTH, MULTIPLIERS)
    shapes.norm("encoder.norm_out", WIDTH * MULTIPLIERS[-1])
    shapes.linear("encoder.conv_out", WIDTH * MULTIPLIERS[-1], NECK, 3, 3)
    shapes.linear("quant_conv", NECK, DIM, 1, 1)
    shapes.tensor("quantize.embedding.weight", ROWS, DIM)
    shapes.tensor("quantize.codebook_used", 65536)
    shapes.decoder(WIDTH, MULTIPLIERS, DIM)
    return shapes


def write_golden(folder, size: tuple[int, int], batch: int, seed: int):
    tolerance = {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4}
    axes = {"input": "b c h w", "codes": "b h w", "reconstruction": "b c h w"}
    manifest = {
        "tensors": published_shapes(),
        "layout": ["model"],
        "seed": seed,
        "axes": axes,
        "tolerance": tolerance,
    }
    plain = PlainLlamaGen(synthetic_checkpoint(manifest)["model"])
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    features = plain.norm_swish(plain.trunk(image, len(MULTIPLIERS)), "encoder.norm_out")
    latent = plain.conv(plain.conv(features, "encoder.conv_out", padding=1), "quant_conv")
    codes = plain.nearest(latent, "quantize.embedding.weight")
    vectors = plain.unit_rows("quantize.embedding.weight")[codes].movedim(-1, 1)
    reconstruction = plain.decode(vectors, len(MULTIPLIERS))
    arrays = {"input": image, "latent": latent, "codes": codes, "quantized": vectors, "reconstruction": reconstruction}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


@pytest.fixture(autouse=True)
def small_variant(registrations):
    like = zoo.info("llamagen-vq-16")
    zoo.register(
        "llamagen-small",
        like.builder,
        spec=replace(like.spec, name="llamagen-small", codebook_sizes=(ROWS,), downsample=(4, 4)),
        config={"width": WIDTH, "multipliers": MULTIPLIERS, "dim": DIM},
        keys=like.keys,
        card=like.card,
    )


@pytest.mark.parametrize(("size", "batch", "seed"), [((32, 32), 1, 0), ((20, 44), 3, 7)])
def test_small_llamagen_computes_what_its_description_says(tmp_path, size, batch, seed):
    report = parity("llamagen-small", *write_golden(tmp_path, size, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    report = parity("llamagen-small", *write_golden(tmp_path, (32, 32), 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def test_the_length_of_a_codebook_row_changes_neither_codes_nor_picture():
    torch.manual_seed(0)
    tokenizer = zoo.create("llamagen-small").eval()
    image = torch.rand(1, 3, 32, 32)
    codes = tokenizer.encode(image)
    before = tokenizer.decode(codes)
    with torch.no_grad():
        tokenizer.quantizer.codebook *= torch.linspace(0.1, 10, ROWS)[:, None]
    assert torch.equal(tokenizer.encode(image), codes)
    assert torch.allclose(tokenizer.embed(codes).norm(dim=1), torch.ones(1, 8, 8))
    assert torch.allclose(tokenizer.decode(codes), before, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "millions"), [("llamagen-vq-16", 71.9), ("llamagen-vq-8", 70.1), ("llamagen-vq-16-t2i", 71.9)]
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(millions, abs=0.06)


def test_transformers_janus_decodes_the_same_and_its_weights_are_read(tmp_path):
    from transformers import JanusVQVAE, JanusVQVAEConfig

    torch.manual_seed(0)
    port = JanusVQVAE(JanusVQVAEConfig(base_channels=128, num_res_blocks=1, num_patches=2)).eval()
    like = zoo.info("janus-vq-16")
    zoo.register(replace_variant(like, "janus-small", config={"num_blocks": 1}, hub=like.sources))
    state = {f"model.vqmodel.{key}": value for key, value in port.state_dict().items()}
    torch.save(state | {"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "janus.pt")
    tokenizer = zoo.load("janus-small", weights=tmp_path / "janus.pt")
    codes = torch.randint(16384, (2, 1, 2, 2))
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = port.decode(codes.flatten(1)) / 2 + 0.5
        latent = port.quant_conv(port.encoder(2 * image - 1))
        assert torch.allclose(tokenizer.to_latent(2 * image - 1), latent, atol=1e-5)
        assert torch.allclose(tokenizer.decode(codes), expected.clamp(0, 1), atol=1e-5)


def test_janus_files_hold_the_tokenizer_under_a_prefix():
    network = zoo.create("janus-vq-16", small=True).state_dict()
    authors = zoo.info("janus-vq-16").sources[0].keys
    assert authors.published_key("decoder.levels.4.blocks.0.conv1.weight")[0] == (
        "gen_vision_model.decoder.conv_blocks.4.res.0.conv1.weight"
    )
    published = {authors.published_key(key)[0]: tensor for key, tensor in network.items()}
    others = {f"{part}.weight": torch.zeros(1) for part in ("language_model.layer", "gen_head.linear", "aligner.a")}
    converted = authors.convert(published | others, network, "pytorch_model.bin")
    assert all(torch.equal(converted[key], tensor) for key, tensor in network.items())
