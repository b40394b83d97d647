"""FQGAN against a plain computation from the published keys, at a small configuration, and its published losses."""

import argparse
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_llamagen import NECK, PlainLlamaGen, Shapes
from zoo.facts import num_parameters
from zoo.parity import parity, synthetic_checkpoint
from zoo.quantizers import FactorizedVQ

WIDTH, MULTIPLIERS, DIM, ROWS, DEPTH, HEADS = 32, (1, 1, 2), 4, 300, 2, 4
RESOLUTION, GRID = (24, 40), (6, 10)  # not square, so that height and width cannot be taken for one another

# Code vectors' order in the decoder: the codebook's name, that of its transformer.
BRANCHES = {
    "dual": {"vis": "visual_head", "sem": "semantic_head"},
    "triple": {"vis": "visual_head", "sem_mid": "semantic_head_mid", "sem_high": "semantic_head_high"},
}
# What published files hold beside the network.
HEADS_OF_TRAINING = {"dual": ["feat_pred_head"], "triple": ["mid_sem_feat_pred", "high_sem_feat_pred"]}


def published_shapes(kind: str) -> Shapes:
    c = WIDTH * MULTIPLIERS[-1]
    shapes = Shapes()
    shapes.trunk(WIDTH, MULTIPLIERS)
    for name, head in BRANCHES[kind].items():
        key = f"encoder.{head}.0"
        shapes.tensor(f"{key}.positional_embedding", math.prod(GRID), c, std=2.0)
        shapes.norm(f"{key}.ln_pre", c)
        for i in range(DEPTH):
            block = f"{key}.transformer.{i}"
            shapes.norm(f"{block}.ln_1", c)
            shapes.tensor(f"{block}.attn.in_proj_weight", 3 * c, c, std=2 / c**0.5)
            shapes.tensor(f"{block}.attn.in_proj_bias", 3 * c)
            shapes.linear(f"{block}.attn.out_proj", c, c)
            shapes.norm(f"{block}.ln_2", c)
            shapes.linear(f"{block}.mlp.c_fc", c, 4 * c)
            shapes.linear(f"{block}.mlp.c_proj", 4 * c, c)
        shapes.norm(f"{key}.ln_post", c)
        shapes.norm(f"encoder.norm_out_{name}", c)
        shapes.linear(f"encoder.conv_out_{name}", c, NECK, 3, 3)
        shapes.linear(f"quant_conv_{name}", NECK, DIM, 1, 1)
        shapes.tensor(f"quantize_{name}.embedding.weight", ROWS, DIM)
        shapes.tensor(f"quantize_{name}.codebook_used", 65536)
    for head in HEADS_OF_TRAINING[kind]:
        shapes.tensor(f"{head}.class_embedding", 1, 16)
        shapes.linear(f"{head}.upscale.0", DIM, 16)
    shapes.decoder(WIDTH, MULTIPLIERS, DIM * len(BRANCHES[kind]))
    return shapes


class PlainFQGAN(PlainLlamaGen):
    def layer_norm(self, x, key):
        centred = x - x.mean(-1, keepdim=True)
        x = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.state[f"{key}.weight"] + self.state[f"{key}.bias"]

    def linear(self, x, key):
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]

    def self_attention(self, x, key):
        joint = x @ self.state[f"{key}.in_proj_weight"].T + self.state[f"{key}.in_proj_bias"]
        heads = []
        for q, k, v in zip(*(part.chunk(HEADS, dim=-1) for part in joint.chunk(3, dim=-1)), strict=True):
            heads.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v)
        return self.linear(torch.cat(heads, dim=-1), f"{key}.out_proj")

    def adapter(self, features, key):
        x = torch.stack([features[:, :, i, j] for i in range(GRID[0]) for j in range(GRID[1])], dim=1)
        x = self.layer_norm(x + self.state[f"{key}.positional_embedding"], f"{key}.ln_pre")
        for i in range(DEPTH):
            block = f"{key}.transformer.{i}"
            x = x + self.self_attention(self.layer_norm(x, f"{block}.ln_1"), f"{block}.attn")
            h = self.linear(self.layer_norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            h = h * (1 + torch.erf(h / 2**0.5)) / 2
            x = x + self.linear(h, f"{block}.mlp.c_proj")
        return self.layer_norm(x, f"{key}.ln_post").mT.reshape(features.shape)

    def branch(self, features, name, head):
        x = self.norm_swish(self.adapter(features, f"encoder.{head}.0"), f"encoder.norm_out_{name}")
        return self.conv(self.conv(x, f"encoder.conv_out_{name}", padding=1), f"quant_conv_{name}")


def write_golden(folder, kind: str, batch: int, seed: int):
    tolerance = {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4}
    axes = {"input": "b c h w", "codes": "b q h w", "reconstruction": "b c h w"}
    manifest = {
        "tensors": published_shapes(kind),
        "layout": ["model"],
        "seed": seed,
        "axes": axes,
        "tolerance": tolerance,
    }
    plain = PlainFQGAN(synthetic_checkpoint(manifest)["model"])
    image = torch.rand(batch, 3, *RESOLUTION, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    features = plain.trunk(image, len(MULTIPLIERS))
    latents, codes, vectors = [], [], []
    for name, head in BRANCHES[kind].items():
        latents.append(plain.branch(features, name, head))
        codes.append(plain.nearest(latents[-1], f"quantize_{name}.embedding.weight"))
        vectors.append(plain.unit_rows(f"quantize_{name}.embedding.weight")[codes[-1]].movedim(-1, 1))
    arrays = {
        "input": image,
        "latent": torch.cat(latents, 1),
        "codes": torch.stack(codes, 1),
        "quantized": torch.cat(vectors, 1),
        "reconstruction": plain.decode(torch.cat(vectors, 1), len(MULTIPLIERS)),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


@pytest.fixture(autouse=True)
def small_variants(registrations):
    for kind, branches in BRANCHES.items():
        like, name = zoo.info(f"fqgan-{kind}-16"), f"fqgan-{kind}-small"
        fields = {"codebook_sizes": (ROWS,) * len(branches), "downsample": (4, 4), "resolution": RESOLUTION}
        zoo.register(
            name,
            like.builder,
            spec=replace(like.spec, name=name, **fields),
            config={"width": WIDTH, "multipliers": MULTIPLIERS, "dim": DIM, "depth": DEPTH, "num_heads": HEADS},
            keys=like.keys,
            card=like.card,
        )


@pytest.mark.parametrize("kind", BRANCHES)
# Seeds whose images have no position as near to a second code as rounding is (squared distances 1e-4 apart or more).
@pytest.mark.parametrize(("batch", "seed"), [(1, 0), (3, 1)])
def test_small_fqgan_computes_what_its_description_says(tmp_path, kind, batch, seed):
    report = parity(f"fqgan-{kind}-small", *write_golden(tmp_path, kind, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    report = parity("fqgan-dual-small", *write_golden(tmp_path, "dual", 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


@pytest.mark.filterwarnings("ignore:the weights of")
def test_a_file_of_the_authors_training_loads(tmp_path):
    manifest = {"tensors": published_shapes("triple"), "layout": ["model"]}
    training = {"optimizer": {"state": {}}, "steps": 200000, "args": argparse.Namespace(vq_model="VQ-16")}
    torch.save(synthetic_checkpoint(manifest) | training, tmp_path / "fqgan_triple.pt")
    tokenizer = zoo.load("fqgan-triple-small", weights=tmp_path / "fqgan_triple.pt")
    published = synthetic_checkpoint(manifest)["model"]
    for position, name in enumerate(BRANCHES["triple"]):
        rows = tokenizer.quantizer.layers[position].codebook
        assert torch.equal(rows, published[f"quantize_{name}.embedding.weight"])


@pytest.mark.parametrize("kind", BRANCHES)
def test_quantizer_losses_are_those_of_the_authors_training(kind):
    manifest = json.loads((GOLDENS / f"fqgan-{kind}-16" / "manifest.json").read_text())
    golden = np.load(GOLDENS / f"fqgan-{kind}-16" / "golden.npz")
    names = [f"quantize_{name}.embedding.weight" for name in BRANCHES[kind]]
    codebooks = {"tensors": {name: manifest["tensors"][name] for name in names}, "seed": manifest["seed"]}
    quantizer = FactorizedVQ(8 * len(names), (16384,) * len(names))
    with torch.no_grad():
        for layer, rows in zip(quantizer.layers, synthetic_checkpoint(codebooks).values(), strict=True):
            layer.codebook.copy_(rows)
    output = quantizer(torch.from_numpy(golden["latent"]).movedim(1, -1))
    assert np.array_equal(output.codes.movedim(-1, 1), golden["codes"])
    weighted = sum(golden[f"loss_{name}"] for name in BRANCHES[kind])  # [codebook, 0.25 commitment, 0.03 entropy]
    losses = {name: loss.item() for name, loss in output.losses.items()}
    assert losses["codebook_loss"] == pytest.approx(weighted[0], abs=1e-6)
    assert 0.25 * losses["commitment_loss"] == pytest.approx(weighted[1], abs=1e-6)
    assert 0.03 * losses["entropy_loss"] == pytest.approx(weighted[2], abs=1e-6)
    assert 0.1 * losses["disentanglement_loss"] == pytest.approx(golden["loss_disentangle"].item(), abs=1e-6)


@pytest.mark.parametrize(("name", "millions"), [("fqgan-dual-16", 111.3), ("fqgan-triple-16", 131.7)])
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(millions, abs=0.06)
