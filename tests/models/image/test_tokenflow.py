"""TokenFlow: one index for two codebooks, features beside pixels, and the authors' positions and resizing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from tests.support.paths import GOLDENS
from zoo.facts import num_parameters
from zoo.models.image.tokenflow import resampled
from zoo.parity import synthetic_checkpoint

NAME = "tokenflow-b"


@pytest.fixture(scope="module")
def tokenizer():
    """Small, with 64 codes."""
    variant = zoo.info(NAME)
    torch.manual_seed(0)
    network = variant.builder(
        replace(variant.spec, codebook_sizes=(64,)), **{**variant.config, **variant.builder.small}
    )
    return network.eval()


def test_variants_have_the_published_sizes():
    tokens = {name: zoo.info(name).spec for name in (NAME, "tokenflow-b-224", "tokenflow-siglip")}
    assert [spec.tokens(spec.resolution) for spec in tokens.values()] == [817, 561, 2227]
    assert [spec.bits(spec.resolution) for spec in tokens.values()] == [12255, 8415, 33405]
    assert num_parameters(zoo.info(NAME)) / 1e6 == pytest.approx(376.6, abs=0.05)


def test_codes_decode_to_pixels_and_to_features(tokenizer):
    codes = tokenizer.encode(torch.rand(2, 3, 256, 256))
    latent = tokenizer.embed(codes)
    assert (codes.shape, latent.shape) == ((2, 1, 817), (2, 40, 16, 16))
    assert tokenizer.decode(codes).shape == (2, 3, 256, 256)
    assert tokenizer.features(codes).shape == (2, 256, 512)
    first = tokenizer.features(codes, num_scales=3)
    assert torch.equal(first, tokenizer.features(codes[:, :, :21]))
    assert not torch.allclose(first, tokenizer.features(codes))


def test_pixels_and_features_each_depend_on_their_own_codebook(tokenizer):
    codes = tokenizer.encode(torch.rand(1, 3, 256, 256))
    image, features = tokenizer.decode(codes), tokenizer.features(codes)
    semantic, pixels = tokenizer.quantizer.layer.codebooks
    for rows, image_changes, features_change in ((semantic, False, True), (pixels, True, False)):
        kept = rows.data.clone()
        rows.data.copy_(kept.roll(1, dims=0))
        assert torch.equal(tokenizer.decode(codes), image) != image_changes
        assert torch.equal(tokenizer.features(codes), features) != features_change
        rows.data.copy_(kept)


def test_positions_are_resampled_with_a_tenth_of_a_patch_more():
    """Cubic weights of a = -0.75 at (i + 0.5) * 14 / 16.1 - 0.5, edges repeated; the class token stays."""
    positions = torch.randn(1 + 14 * 14, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = torch.zeros(16, 14, dtype=torch.float64)
    for i in range(16):
        source = (i + 0.5) * 14 / 16.1 - 0.5
        for j in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            weights[i, min(max(j, 0), 13)] += weight(source - j)
    expected = torch.einsum("ih,jw,hwc->ijc", weights, weights, positions[1:].view(14, 14, 3)).reshape(256, 3)
    found = resampled(positions, 16)
    torch.testing.assert_close(found[1:], expected, atol=1e-6, rtol=0)
    assert torch.equal(found[:1], positions[:1]) and torch.equal(resampled(positions, 14), positions)


@pytest.mark.parametrize("key", ["ema", "model", "state_dict"])
def test_the_state_dict_is_under_the_first_of_three_names(key):
    keys = zoo.info(NAME).keys
    expected = {"semantic_decoder.class_token": torch.zeros(1, 1, 2)}
    published = {"decoder_vqkd.cls_token": torch.ones(1, 1, 2)}
    later = {"state_dict": {"decoder_vqkd.cls_token": torch.zeros(1, 1, 2)}} if key != "state_dict" else {}
    state = keys.convert({"steps": 3, **later, key: published}, expected, "file")
    assert torch.equal(state["semantic_decoder.class_token"], torch.ones(1, 1, 2))
    with pytest.raises(zoo.CheckpointError, match="under ema or model or state_dict, found no"):
        keys.convert({"steps": 3}, expected, "file")


def test_the_published_layers_have_no_bias_of_keys():
    published, transform = zoo.info(NAME).keys.published_key("semantic_decoder.blocks.2.attention.in_proj_bias")
    assert published == "decoder_vqkd.blocks.2.attn.q_bias"
    assert transform(torch.tensor([1.0, 2]), torch.tensor([3.0, 4])).tolist() == [1, 2, 0, 0, 3, 4]


@torch.inference_mode()
def test_features_are_those_of_the_authors():
    """With the published sizes of what the features pass, and small encoders and a small decoder of pixels."""
    variant = zoo.info(NAME)
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / NAME / "golden.npz").items()}
    manifest = json.loads((GOLDENS / NAME / "manifest.json").read_text())
    passed = ("decoder_vqkd.", "decode_task_layer.", "quantize.")
    manifest["tensors"] = {key: facts for key, facts in manifest["tensors"].items() if key.startswith(passed)}
    small = {"width": 8, "num_blocks": 1, "decoder_width": 8, "decoder_blocks": 1, "vision_layers": 1}
    tokenizer = variant.builder(variant.spec, **{**variant.config, **small}).eval()
    ours = {
        key: tensor
        for key, tensor in tokenizer.state_dict().items()
        if key.startswith(("semantic_decoder.", "quantizer."))
    }
    tokenizer.load_state_dict(variant.keys.convert(synthetic_checkpoint(manifest), ours, NAME), strict=False)
    codes = golden["codes"][:, None]
    torch.testing.assert_close(tokenizer.embed(codes), golden["quantized"], atol=1e-5, rtol=0)
    torch.testing.assert_close(tokenizer.features(codes)[:, :32], golden["semantic_reconstruction"], atol=1e-4, rtol=0)
