"""RobusTok against a plain computation from the published keys, at a small configuration, and the authors' draws."""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_llamagen import Shapes
from zoo.facts import num_parameters
from zoo.metrics.perturbation import perturb_codes
from zoo.parity import parity, read_golden, read_manifest, synthetic_checkpoint
from zoo.quantizers import VectorQuantizer

GOLDEN = GOLDENS / "robusttok"
WIDTH, LAYERS, HEADS, DIM, ROWS = 32, 3, 4, 6, 300
PATCH, GRID = 8, (3, 5)  # not square, so that height and width cannot be taken for one another
SIZE = tuple(PATCH * side for side in GRID)


def published_shapes(width: int, num_layers: int, dim: int, rows: int, patch: int, positions: int) -> Shapes:
    """The names and shapes of the authors' file, from its description, without the teacher's."""
    shapes = Shapes()
    shapes.tensor("encoder.latent_tokens", 1, positions, width, std=1.0)
    shapes.linear("encoder.model.patch_embed.proj", 3, width, patch, patch)
    shapes.linear("quant_conv", width, dim, 1, 1)
    shapes.tensor("quantize.embedding.weight", rows, dim)
    shapes.tensor("quantize.ema_vocab_hit_SV", rows)
    shapes.linear("post_quant_conv", dim, width, 1, 1)
    shapes.tensor("decoder.mask_token", 1, 1, width, std=0.2)
    shapes.linear("decoder.to_pixel.model", width, 3 * patch**2)
    for side, second in (("encoder", positions), ("decoder", positions + 1)):
        levels = [[0] * (positions + 1) + [1] * second]
        shapes[f"{side}.lvl1LC"] = {"shape": [1, positions + 1 + second], "dtype": "int64", "value": levels}
        shapes.tensor(f"{side}.lvl_embed.weight", 2, width, std=0.5)
        shapes.tensor(f"{side}.model.cls_token", 1, 1, width, std=0.7)
        shapes.tensor(f"{side}.model.pos_embed", 1, positions + 1, width, std=0.7)
        shapes.norm(f"{side}.model.norm", width)
        for i in range(num_layers):
            key = f"{side}.model.blocks.{i}"
            for branch, gain in (("norm1", "ls1"), ("norm2", "ls2")):
                shapes.norm(f"{key}.{branch}", width)
                shapes.tensor(f"{key}.{gain}.gamma", width, mean=0.4, std=0.05)
            shapes.linear(f"{key}.attn.qkv", width, 3 * width, std=2 / width**0.5)
            shapes.linear(f"{key}.attn.proj", width, width)
            shapes.linear(f"{key}.mlp.fc1", width, 4 * width)
            shapes.linear(f"{key}.mlp.fc2", 4 * width, width)
    return shapes


class PlainRobusTok:
    """The network as its description states it, reading the weights under their published names."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def linear(self, x, key):
        return x @ self.state[f"{key}.weight"].flatten(1).T + self.state[f"{key}.bias"]

    def norm(self, x, key):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.state[f"{key}.weight"] + self.state[f"{key}.bias"]

    def attention(self, x, key):
        h, size, heads = self.linear(x, f"{key}.qkv"), WIDTH // HEADS, []
        for part in range(HEADS):
            q, k, v = (h[..., o * WIDTH + part * size :][..., :size] for o in range(3))
            heads.append(torch.softmax(q @ k.transpose(1, 2) / size**0.5, dim=-1) @ v)
        return self.linear(torch.cat(heads, -1), f"{key}.proj")

    def mlp(self, x, key):
        h = self.linear(x, f"{key}.fc1")
        return self.linear(h * 0.5 * (1 + torch.erf(h / 2**0.5)), f"{key}.fc2")

    def transformer(self, x, side):
        x = x + self.state[f"{side}.lvl_embed.weight"][self.state[f"{side}.lvl1LC"]]
        for i in range(LAYERS):
            key = f"{side}.model.blocks.{i}"
            x = x + self.state[f"{key}.ls1.gamma"] * self.attention(self.norm(x, f"{key}.norm1"), f"{key}.attn")
            x = x + self.state[f"{key}.ls2.gamma"] * self.mlp(self.norm(x, f"{key}.norm2"), f"{key}.mlp")
        return self.norm(x, f"{side}.model.norm")

    def placed(self, tokens, side):
        class_tokens = self.state[f"{side}.model.cls_token"].expand(len(tokens), 1, -1)
        return torch.cat([class_tokens, tokens], 1) + self.state[f"{side}.model.pos_embed"]

    def encode(self, image):
        """`[B, positions, dim]`."""
        places = [(PATCH * row, PATCH * column) for row in range(GRID[0]) for column in range(GRID[1])]
        patches = torch.stack([image[:, :, y : y + PATCH, x : x + PATCH].flatten(1) for y, x in places], dim=1)
        first = self.placed(self.linear(patches, "encoder.model.patch_embed.proj"), "encoder")
        latents = self.state["encoder.latent_tokens"].expand(len(image), -1, -1)
        x = self.transformer(torch.cat([first, self.placed(latents, "encoder")[:, 1:]], 1), "encoder")
        return self.linear(x[:, 1 + len(places) :], "quant_conv")

    def rows(self):
        return F.normalize(self.state["quantize.embedding.weight"], dim=1)

    def quantize(self, latent):
        distances = 2 - 2 * F.normalize(latent, dim=-1) @ self.rows().T
        return distances.argmin(-1)

    def decode(self, codes):
        vectors = self.linear(self.rows()[codes], "post_quant_conv")
        masks = self.state["decoder.mask_token"].expand_as(vectors)
        x = self.transformer(torch.cat([self.placed(masks, "decoder"), self.placed(vectors, "decoder")], 1), "decoder")
        features = self.linear(x[:, 1 : 1 + codes.shape[1]], "decoder.to_pixel.model")
        image = torch.empty(len(codes), 3, *SIZE)
        for position in range(codes.shape[1]):
            row, column = divmod(position, GRID[1])
            patch = features[:, position].view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)
            image[:, :, PATCH * row :, PATCH * column :][:, :, :PATCH, :PATCH] = patch
        return image


def small_manifest(seed: int) -> dict:
    shapes = published_shapes(WIDTH, LAYERS, DIM, ROWS, PATCH, math.prod(GRID))
    shapes.linear("semantic_model.blocks.0.attn.qkv", 8, 24)
    return {
        "tensors": shapes,
        "layout": ["ema"],
        "seed": seed,
        "axes": {"input": "b c h w", "codes": "b t", "latent": "b c h w", "reconstruction": "b c h w"},
        "tolerance": {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4},
    }


def random_images(batch: int, seed: int) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def write_golden(folder: Path, batch: int, seed: int) -> tuple[Path, Path]:
    manifest = small_manifest(seed)
    plain = PlainRobusTok(synthetic_checkpoint(manifest)["ema"])
    image = random_images(batch, seed) * 2 - 1
    latent = plain.encode(image)
    codes = plain.quantize(latent)
    on_grid = latent.transpose(1, 2).unflatten(2, GRID)
    arrays = {"input": image, "latent": on_grid, "codes": codes, "reconstruction": plain.decode(codes)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


@pytest.fixture(autouse=True)
def small_variant(registrations):
    like = zoo.info("robustok")
    zoo.register(
        "robustok-small",
        like.builder,
        spec=replace(
            like.spec, name="robustok-small", codebook_sizes=(ROWS,), downsample=(PATCH, PATCH), resolution=SIZE
        ),
        config={"dim": DIM, "width": WIDTH, "num_layers": LAYERS, "num_heads": HEADS},
        keys=like.keys,
        card=like.card,
    )


@pytest.mark.parametrize(("batch", "seed"), [(1, 0), (3, 7)])
def test_small_robustok_computes_what_its_description_says(tmp_path, batch, seed):
    report = parity("robustok-small", *write_golden(tmp_path, batch, seed))
    assert set(report.differences) == {"latent", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(tmp_path):
    report = parity("robustok-small", *write_golden(tmp_path, 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def test_codes_in_a_row_are_only_taken_for_all_of_the_grid(tmp_path):
    manifest, golden = write_golden(tmp_path, 1, 0)
    arrays = dict(np.load(golden))
    np.savez(golden, **(arrays | {"codes": arrays["codes"][:, :-1]}))
    with pytest.raises(zoo.InputError, match="cannot turn axes 'b t' into those of image"):
        parity("robustok-small", manifest, golden)


@pytest.fixture
def training_checkpoint() -> dict:
    """Everything that the authors' training saves, the averaged weights of seed 1 and the raw ones of seed 2."""
    averaged, raw = (synthetic_checkpoint(small_manifest(0), seed=seed)["ema"] for seed in (1, 2))
    parameter = torch.nn.Parameter(torch.zeros(3))
    return {
        "model": raw,
        "ema": averaged,
        "optimizer": torch.optim.AdamW([parameter]).state_dict(),
        "discriminator": {"heads.0.weight": torch.zeros(3)},
        "optimizer_disc": torch.optim.AdamW([parameter]).state_dict(),
        "steps": 250000,
        "args": argparse.Namespace(codebook_size=ROWS, ema=True, cloud_save_path=Path("runs")),
    }


@pytest.mark.parametrize("averaged", [True, False])
def test_averaged_weights_go_before_raw_ones(training_checkpoint, tmp_path, averaged):
    plain = PlainRobusTok(training_checkpoint["ema" if averaged else "model"])
    if not averaged:
        del training_checkpoint["ema"]
    torch.save(training_checkpoint, tmp_path / "main-train.pt")
    tokenizer = zoo.load("robustok-small", weights=tmp_path / "main-train.pt")
    image = random_images(2, 3)
    codes = tokenizer.encode(image)
    assert torch.equal(codes.flatten(1), plain.quantize(plain.encode(image * 2 - 1)))
    expected = (plain.decode(codes.flatten(1)) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(codes), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: [file.pop("ema"), file.pop("model")], "expected the state dict under model, found no 'model'"),
        (lambda file: file["ema"].pop("decoder.mask_token"), r"1 tensor missing \(decoder.mask_token\)"),
        (lambda file: file["ema"].update(quantizes=torch.zeros(3)), r"1 tensor unexpected \(quantizes\)"),
        (
            lambda file: file["ema"].update({"quant_conv.bias": torch.zeros(3)}),
            r"quant_conv.bias: \[3\], expected \[6\]",
        ),
    ],
)
def test_a_file_that_is_not_the_networks_is_refused_with_the_reason(training_checkpoint, tmp_path, spoil, message):
    spoil(training_checkpoint)
    torch.save(training_checkpoint, tmp_path / "wrong.pt")
    with pytest.raises(zoo.CheckpointError, match=rf"wrong.pt: .*{message}"):
        zoo.load("robustok-small", weights=tmp_path / "wrong.pt")


def test_the_decoder_receives_unit_rows_whatever_the_length_of_those_stored():
    torch.manual_seed(0)
    tokenizer = zoo.create("robustok-small").eval()
    image = random_images(2, 0)
    codes = tokenizer.encode(image)
    latent = tokenizer.embed(codes)
    with torch.no_grad():
        tokenizer.quantizer.codebook *= torch.linspace(0.1, 10, ROWS)[:, None]
    assert torch.equal(tokenizer.encode(image), codes)
    torch.testing.assert_close(tokenizer.embed(codes), latent)
    torch.testing.assert_close(latent.norm(dim=1), torch.ones(2, *GRID))


def test_the_losses_are_those_of_unit_vectors():
    torch.manual_seed(0)
    tokenizer = zoo.create("robustok-small")
    latent = torch.randn(2, *GRID, DIM)
    losses = tokenizer.quantizer(latent).losses
    rows = F.normalize(tokenizer.quantizer.codebook, dim=1)[tokenizer.quantizer.encode(latent)[..., 0]]
    expected = (F.normalize(latent, dim=-1) - rows).square().mean()
    assert set(losses) == {"commitment_loss", "codebook_loss"}
    for loss in losses.values():
        torch.testing.assert_close(loss, expected)


def test_training_leaves_out_branches_by_chance_and_evaluation_none():
    torch.manual_seed(0)
    tokenizer = zoo.create("robustok-small")
    image = random_images(64, 0)
    with torch.no_grad():
        first, second = (tokenizer.to_latent(image) for _ in range(2))
        tokenizer.eval()
        whole = tokenizer.to_latent(image)
        assert torch.equal(whole, tokenizer.to_latent(image))
    same = (first == second).flatten(1).all(dim=1)
    assert 0 < same.sum() < len(image)  # items are drawn for one by one, and most keep all of their branches


def test_one_size_of_pictures_and_one_grid_of_codes_is_taken():
    tokenizer = zoo.create("robustok", small=True).eval()
    with pytest.raises(zoo.InputError, match="robustok takes image of 256x256, got 256x512; see preprocess"):
        tokenizer.encode(torch.rand(1, 3, 256, 512))
    with pytest.raises(zoo.InputError, match=r"expected codes as \[batch, 1, height, width\] \(on the grid\), got"):
        tokenizer.decode(torch.zeros(1, 1, 256, dtype=torch.long))
    with pytest.raises(zoo.InputError, match="robustok takes 16 x 16 codes per image, got 11 x 11"):
        tokenizer.decode(torch.zeros(1, 1, 11, 11, dtype=torch.long))
    with pytest.raises(zoo.InputError, match="codes out of range: found 4096 to 4096"):
        tokenizer.decode(torch.full((1, 1, 16, 16), 4096))


def test_codes_are_perturbed_as_the_authors_do_with_the_same_draws(monkeypatch):
    manifest, (golden,) = read_manifest(GOLDEN / "manifest.json"), read_golden(GOLDEN / "golden.npz")
    key = "quantize.embedding.weight"
    quantizer = VectorQuantizer(64, 4096, distance="cosine")
    codebook = synthetic_checkpoint(manifest | {"tensors": {key: manifest["tensors"][key]}})["ema"][key]
    quantizer.load_state_dict({"codebook": codebook})
    latent = golden["latent"].movedim(1, -1)
    codes = quantizer.encode(latent).movedim(-1, 1)
    assert torch.equal(codes.flatten(1), golden["codes"])
    alpha, beta, delta = golden["perturb_args"].tolist()
    monkeypatch.setattr(torch, "rand", lambda shape, **_: golden["perturb_prob"].view(shape))
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: golden["perturb_idx"].view(shape))
    perturbed = perturb_codes(
        codes,
        [quantizer.rows()],
        alpha=alpha,
        beta=beta,
        delta=int(delta),
        latents=[quantizer.normalise(latent)],
    )
    vectors = quantizer.codes_to_latent(perturbed.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(vectors, golden["perturbed"], rtol=0, atol=1e-6)
    assert (perturbed != codes).float().mean() > 0.3


def test_the_shapes_written_here_are_those_of_the_published_file():
    tensors = read_manifest(GOLDEN / "manifest.json")["tensors"]
    shapes = published_shapes(768, 12, 64, 4096, 16, 256)
    assert {key: entry["shape"] for key, entry in tensors.items()} == {
        key: entry["shape"] for key, entry in shapes.items()
    }


@pytest.mark.parametrize("name", ["robustok", "robustok-post-trained", "xqgan-vq-4096"])
def test_published_variants_have_the_published_number_of_parameters(name):
    assert num_parameters(zoo.info(name)) / 1e6 == pytest.approx(172.3, abs=0.06)


def test_xqgan_stands_for_its_variant_of_the_lowest_published_fid():
    names = [name for name in zoo.list_tokenizers() if name.startswith("xqgan-vq-")]
    assert len(names) == 2
    fids = {name: zoo.info(name).figures["rFID, ImageNet 256x256"] for name in names}
    assert zoo.info("xqgan-vq").name == min(fids, key=fids.get)
