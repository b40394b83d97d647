"""TiTok and One-D-Piece against a plain computation from the published keys, at a small configuration."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from tests.support.paths import GOLDENS
from zoo.models.image.titok import CHECKPOINT, coarse_to_fine
from zoo.parity import parity, read_manifest, synthetic_checkpoint

TITOK, ONE_D_PIECE = "titok-s-128", "one-d-piece-s-256"
WIDTH, LAYERS, HEADS, PIXEL_WIDTH, CODEBOOK = 64, 2, 4, 32, 64


def published_shapes(
    num_tokens: int, width: int, num_layers: int, pixel_width: int, codebook_size: int
) -> dict[str, list[int]]:
    """The names and shapes of the authors' file, from its description."""
    shapes: dict[str, list[int]] = {"latent_tokens": [num_tokens, width]}

    def norm(key: str, channels: int) -> None:
        shapes[f"{key}.weight"] = shapes[f"{key}.bias"] = [channels]

    def layer(key: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{key}.weight"] = list(shape)
        if bias:
            shapes[f"{key}.bias"] = [shape[0]]

    def block(key: str, c_in: int, c_out: int) -> None:
        norm(f"{key}.norm1", c_in)
        norm(f"{key}.norm2", c_out)
        layer(f"{key}.conv1", c_out, c_in, 3, 3, bias=False)
        layer(f"{key}.conv2", c_out, c_out, 3, 3, bias=False)
        if c_in != c_out:
            layer(f"{key}.nin_shortcut", c_out, c_out, 1, 1, bias=False)

    for side in ("encoder", "decoder"):
        shapes[f"{side}.class_embedding"] = [1, width]
        shapes[f"{side}.positional_embedding"] = [257, width]
        shapes[f"{side}.latent_token_positional_embedding"] = [num_tokens, width]
        norm(f"{side}.ln_pre", width)
        norm(f"{side}.ln_post", width)
        for i in range(num_layers):
            key = f"{side}.transformer.{i}"
            norm(f"{key}.ln_1", width)
            norm(f"{key}.ln_2", width)
            shapes[f"{key}.attn.in_proj_weight"] = [3 * width, width]
            shapes[f"{key}.attn.in_proj_bias"] = [3 * width]
            layer(f"{key}.attn.out_proj", width, width)
            layer(f"{key}.mlp.c_fc", 4 * width, width)
            layer(f"{key}.mlp.c_proj", width, 4 * width)
    layer("encoder.patch_embed", width, 3, 16, 16)
    layer("encoder.conv_out", 12, width, 1, 1)
    shapes["quantize.embedding.weight"] = [codebook_size, 12]
    layer("decoder.decoder_embed", width, 12)
    shapes["decoder.mask_token"] = [1, 1, width]
    layer("decoder.ffn.0", 2 * width, width, 1, 1)
    layer("decoder.ffn.2", 1024, 2 * width, 1, 1)
    shapes["pixel_quantize.embedding.weight"] = [1024, 2 * pixel_width]
    layer("pixel_decoder.conv_in", 4 * pixel_width, 2 * pixel_width, 3, 3)
    for j in range(2):
        block(f"pixel_decoder.mid.{j}", 4 * pixel_width, 4 * pixel_width)
    for i, (c_in, c_out) in enumerate([(1, 1), (2, 1), (2, 2), (4, 2), (4, 4)]):
        block(f"pixel_decoder.up.{i}.block.0", c_in * pixel_width, c_out * pixel_width)
        block(f"pixel_decoder.up.{i}.block.1", c_out * pixel_width, c_out * pixel_width)
        if i > 0:
            layer(f"pixel_decoder.up.{i}.upsample_conv", c_out * pixel_width, c_out * pixel_width, 3, 3)
    norm("pixel_decoder.norm_out", pixel_width)
    layer("pixel_decoder.conv_out", 3, pixel_width, 3, 3)
    return shapes


class PlainTiTok:
    """The network as its description states it, reading the weights under their published names."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def linear(self, x, key):
        return x @ self.state[f"{key}.weight"].flatten(1).T + self.state[f"{key}.bias"]

    def layer_norm(self, x, key):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{key}.weight"] + self.state[f"{key}.bias"]

    def transformer(self, x, side):
        for i in range(LAYERS):
            key = f"{side}.transformer.{i}"
            h = self.layer_norm(x, f"{key}.ln_1")
            h = h @ self.state[f"{key}.attn.in_proj_weight"].T + self.state[f"{key}.attn.in_proj_bias"]
            heads = []
            for part in range(HEADS):
                size = WIDTH // HEADS
                q, k, v = (h[..., o * WIDTH + part * size :][..., :size] for o in range(3))
                heads.append(torch.softmax(q @ k.transpose(1, 2) / size**0.5, dim=-1) @ v)
            x = x + self.linear(torch.cat(heads, -1), f"{key}.attn.out_proj")
            h = self.linear(self.layer_norm(x, f"{key}.ln_2"), f"{key}.mlp.c_fc")
            h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
            x = x + self.linear(h, f"{key}.mlp.c_proj")
        return x

    def encode(self, image, legacy=True):
        get = self.state.__getitem__
        patches = torch.stack(
            [
                image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].flatten(1)
                for row in range(16)
                for column in range(16)
            ],
            dim=1,
        )
        x = self.linear(patches, "encoder.patch_embed")
        x = torch.cat([get("encoder.class_embedding").expand(len(x), 1, -1), x], 1)
        x = x + get("encoder.positional_embedding")
        latents = get("latent_tokens") + get("encoder.latent_token_positional_embedding")
        x = torch.cat([x, latents.expand(len(x), -1, -1)], 1)
        x = self.transformer(self.layer_norm(x, "encoder.ln_pre"), "encoder")
        x = self.layer_norm(x[:, 257:], "encoder.ln_post")
        if not legacy:
            return self.linear(x, "encoder.conv_out").transpose(1, 2)
        num_tokens = x.shape[1]
        mixed = torch.empty(len(x), num_tokens, WIDTH)
        for channel in range(WIDTH):
            for position in range(num_tokens):
                token, feature = divmod(channel * num_tokens + position, WIDTH)
                mixed[:, position, channel] = x[:, token, feature]
        return self.linear(mixed, "encoder.conv_out").transpose(1, 2)

    def rows(self):
        return F.normalize(self.state["quantize.embedding.weight"], dim=1)

    def quantize(self, latent):
        return (F.normalize(latent, dim=1).transpose(1, 2) @ self.rows().T).argmax(-1)

    def decode(self, codes):
        get = self.state.__getitem__
        latents = self.linear(self.rows()[codes], "decoder.decoder_embed")
        latents = latents + get("decoder.latent_token_positional_embedding")[: codes.shape[1]]
        masks = get("decoder.mask_token").expand(len(codes), 256, -1)
        x = torch.cat([get("decoder.class_embedding").expand(len(codes), 1, -1), masks], 1)
        x = torch.cat([x + get("decoder.positional_embedding"), latents], 1)
        x = self.transformer(self.layer_norm(x, "decoder.ln_pre"), "decoder")
        x = self.layer_norm(x[:, 1:257], "decoder.ln_post")
        logits = self.linear(torch.tanh(self.linear(x, "decoder.ffn.0")), "decoder.ffn.2")
        x = torch.softmax(logits, dim=-1) @ get("pixel_quantize.embedding.weight")
        return self.pixels(x.transpose(1, 2).unflatten(2, (16, 16)))

    def conv(self, x, key):
        weight = self.state[f"pixel_decoder.{key}.weight"]
        bias = self.state.get(f"pixel_decoder.{key}.bias")
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def norm_swish(self, x, key):
        weight, bias = (self.state[f"pixel_decoder.{key}.{part}"] for part in ("weight", "bias"))
        x = F.group_norm(x, min(32, x.shape[1] // 4), weight, bias, eps=1e-6)
        return x * torch.sigmoid(x)

    def block(self, x, key):
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1")
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2")
        if h.shape[1] != x.shape[1]:
            return h + self.conv(h, f"{key}.nin_shortcut")
        return h + x

    def pixels(self, x):
        x = self.conv(x, "conv_in")
        for j in range(2):
            x = self.block(x, f"mid.{j}")
        for i in (4, 3, 2, 1, 0):
            for j in range(2):
                x = self.block(x, f"up.{i}.block.{j}")
            if i > 0:
                x = self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"up.{i}.upsample_conv")
        return self.conv(self.norm_swish(x, "norm_out"), "conv_out")


@pytest.fixture
def register_small(registrations):

    def register(like: str, num_tokens: int, **config: int) -> str:
        variant = zoo.info(like)
        spec = replace(variant.spec, name="small", num_tokens=num_tokens, codebook_sizes=(CODEBOOK,))
        sizes = {"width": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "pixel_width": PIXEL_WIDTH, **config}
        zoo.register("small", variant.builder, spec=spec, config=sizes, keys=CHECKPOINT, card=variant.card)
        return "small"

    return register


def small_manifest(num_tokens: int, seed: int) -> dict:
    shapes = published_shapes(num_tokens, WIDTH, LAYERS, PIXEL_WIDTH, CODEBOOK)
    return {
        "tensors": {key: {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()},
        "layout": [],
        "seed": seed,
        "axes": {"input": "b c h w", "codes": "b q t", "reconstruction": "b c h w"},
        "tolerance": {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-3},
    }


def write_golden(folder: Path, num_tokens: int, batch: int, seed: int) -> tuple[Path, Path]:
    manifest = small_manifest(num_tokens, seed)
    plain = PlainTiTok(synthetic_checkpoint(manifest))
    image = torch.rand(batch, 3, 256, 256, generator=torch.Generator().manual_seed(seed))
    latent = plain.encode(image)
    codes = plain.quantize(latent)
    arrays = {"input": image, "latent": latent, "codes": codes[:, None], "reconstruction": plain.decode(codes)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


@pytest.mark.parametrize(("like", "num_tokens", "batch", "seed"), [(TITOK, 24, 1, 0), (ONE_D_PIECE, 37, 2, 7)])
def test_small_network_computes_what_its_description_says(register_small, tmp_path, like, num_tokens, batch, seed):
    name = register_small(like, num_tokens)
    report = parity(name, *write_golden(tmp_path, num_tokens, batch, seed))
    assert set(report.differences) == {"latent", "reconstruction"}
    assert report.passed, report


def test_latents_that_are_not_legacy_are_each_of_one_token(register_small, tmp_path):
    checkpoint = synthetic_checkpoint(small_manifest(24, 5))
    torch.save(checkpoint, tmp_path / "published.bin")
    tokenizer = zoo.load(register_small(ONE_D_PIECE, 24, legacy=False), weights=tmp_path / "published.bin")
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latent = tokenizer.to_latent(image)
    assert (latent - PlainTiTok(checkpoint).encode(image, legacy=False)).abs().max() < 1e-4
    assert (latent - PlainTiTok(checkpoint).encode(image)).abs().max() > 0.1


def test_training_starts_at_grey_with_latents_that_tell_pictures_apart():
    tokenizer = zoo.create("one-d-piece-nano").eval()
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(8, 3, 4, 4, generator=generator)
    images = F.interpolate(colours, size=64, mode="bilinear")
    with torch.no_grad():
        latent = F.normalize(tokenizer.to_latent(images), dim=1)
        reconstruction = tokenizer.from_latent(latent)
    assert (reconstruction - 0.5).abs().mean() < 0.1
    assert latent.std(dim=0).mean() > 0.02  # unit vectors of 12 numbers: 0.29 if nothing in them were constant


def test_training_starts_with_latents_of_places_from_the_whole_picture_to_single_cells():
    torch.manual_seed(0)
    tokenizer = zoo.create("one-d-piece-nano").eval()
    cells = 256  # patches of 4x4 pixels of a 64x64 picture, as many as tokens
    image = F.interpolate(torch.rand(1, 3, 16, 16), size=64, mode="bilinear")
    inverted = image.repeat(cells, 1, 1, 1)
    for cell in range(cells):
        row, column = 4 * (cell // 16), 4 * (cell % 16)
        inverted[cell, :, row : row + 4, column : column + 4] = 1 - image[0, :, row : row + 4, column : column + 4]
    with torch.no_grad():
        latent = F.normalize(tokenizer.to_latent(image), dim=1)
        seen = (F.normalize(tokenizer.to_latent(inverted), dim=1) - latent).norm(dim=1).T  # [tokens, cells]
        others = latent.repeat(cells, 1, 1)
        others.diagonal(dim1=0, dim2=2).neg_()
        drawn = (tokenizer.from_latent(others) - tokenizer.from_latent(latent)).abs().mean(dim=1)
    drawn = F.avg_pool2d(drawn, 4).flatten(1)  # [tokens, cells]
    place = coarse_to_fine(256, 16) > 0
    assert place.sum(dim=1).tolist() == [256] + 4 * [64] + 16 * [16] + 64 * [4] + 171 * [1]
    assert len({int(cell) for cell in place[85:].int().argmax(dim=1)}) == 171
    for level in (place[1:5], place[5:21], place[21:85], place[85:]):
        assert (level.sum(dim=0) == level.sum(dim=0).clamp(0, 1)).all()  # parts of one size do not overlap
    assert (seen[85:].argmax(dim=1) == place[85:].int().argmax(dim=1)).float().mean() > 0.75
    for change, ratio in ((seen, 5), (drawn, 1.3)):
        inside = (change * place)[5:].sum(dim=1) / place[5:].sum(dim=1)
        outside = (change * ~place)[5:].sum(dim=1) / (~place)[5:].sum(dim=1)
        assert (inside / outside).mean() > ratio


def test_weights_of_another_seed_are_not_at_parity(register_small, tmp_path):
    report = parity(register_small(TITOK, 24), *write_golden(tmp_path, 24, 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def test_the_first_codes_decode_as_a_shorter_sequence(register_small, tmp_path):
    name = register_small(ONE_D_PIECE, 37)
    checkpoint = synthetic_checkpoint(small_manifest(37, 3))
    torch.save(checkpoint, tmp_path / "published.bin")
    tokenizer = zoo.load(name, weights=tmp_path / "published.bin")
    codes = torch.randint(CODEBOOK, (2, 1, 37), generator=torch.Generator().manual_seed(3))
    whole = tokenizer.decode(codes)
    for num_tokens in (1, 20):
        decoded = tokenizer.decode(codes, num_tokens=num_tokens)
        expected = PlainTiTok(checkpoint).decode(codes[:, 0, :num_tokens]).clamp(0, 1)
        assert (decoded - expected).abs().max() < 1e-3
        assert (decoded - whole).abs().max() > 1e-2


def test_no_more_tokens_are_taken_than_there_are():
    tokenizer = zoo.create(ONE_D_PIECE, small=True).eval()
    image = torch.rand(1, 3, 256, 256)
    for num_tokens in (0, 257, -1, 1.0, "all"):
        with pytest.raises(zoo.InputError, match=f"expected num_tokens from 1 to 256, got {num_tokens}"):
            tokenizer.encode(image, num_tokens=num_tokens)
    codes = tokenizer.encode(image, num_tokens=5)
    with pytest.raises(zoo.InputError, match="expected num_tokens from 1 to 5, got 6"):
        tokenizer.decode(codes, num_tokens=6)
    with pytest.raises(zoo.InputError, match="takes 1 to 256 codes per image, got 257"):
        tokenizer.decode(torch.zeros(1, 1, 257, dtype=torch.long))


def test_titok_takes_all_of_its_tokens():
    tokenizer = zoo.create(TITOK, small=True).eval()
    codes = torch.zeros(1, 1, 128, dtype=torch.long)
    with pytest.raises(zoo.InputError, match="takes 128 codes per image, got 127"):
        tokenizer.decode(codes[..., :127])
    with pytest.raises(zoo.InputError, match="decode has no option 'num_tokens'"):
        tokenizer.decode(codes, num_tokens=64)
    with pytest.raises(zoo.InputError, match="encode has no option 'num_tokens'"):
        tokenizer.encode(torch.rand(1, 3, 256, 256), num_tokens=64)


def test_one_d_piece_is_trained_on_a_random_number_of_first_tokens(register_small):
    torch.manual_seed(0)
    tokenizer = zoo.create(register_small(ONE_D_PIECE, 3, num_layers=1, pixel_width=8))
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        whole = tokenizer.quantizer(tokenizer.to_latent(image).movedim(1, -1))
        outputs = [tokenizer(image) for _ in range(8)]
    assert {output.latent.shape[2] for output in outputs} == {1, 2, 3}
    for output in outputs:
        assert torch.equal(output.latent, whole.quantized.movedim(-1, 1)[..., : output.latent.shape[2]])
        assert torch.equal(output.reconstruction, tokenizer.from_latent(output.latent))
        assert torch.equal(output.codes, whole.codes.movedim(-1, 1))
        assert output.losses == whole.losses
    tokenizer.eval()
    assert {tokenizer(image).latent.shape[2] for _ in range(4)} == {3}


def test_titok_is_trained_on_all_tokens(register_small):
    tokenizer = zoo.create(register_small(TITOK, 3, num_layers=1, pixel_width=8))
    assert {tokenizer(torch.rand(1, 3, 256, 256)).latent.shape[2] for _ in range(4)} == {3}


def test_a_checkpoint_of_the_first_stage_lacks_the_pixel_decoder(register_small, tmp_path):
    name = register_small(TITOK, 24)
    checkpoint = synthetic_checkpoint(small_manifest(24, 0))
    first_stage = {key: value for key, value in checkpoint.items() if not key.startswith("pixel_")}
    torch.save(first_stage, tmp_path / "stage1.bin")
    with pytest.raises(zoo.CheckpointError, match=r"tensors missing \(pixel_.*nothing was loaded"):
        zoo.load(name, weights=tmp_path / "stage1.bin")


@pytest.mark.parametrize(
    ("name", "num_tokens", "width", "num_layers"),
    [(TITOK, 128, 512, 8), (ONE_D_PIECE, 256, 512, 8), ("one-d-piece-b-256", 256, 768, 12)],
)
def test_the_shapes_written_here_are_those_of_the_published_file(name, num_tokens, width, num_layers):
    tensors = read_manifest(GOLDENS / name / "manifest.json")["tensors"]
    shapes = published_shapes(num_tokens, width, num_layers, 128, 4096)
    assert {key: entry["shape"] for key, entry in tensors.items()} == shapes


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("one-d-piece-s-256", 83.9),
        ("one-d-piece-b-256", 205.3),
        ("one-d-piece-l-256", 641.7),
        ("titok-s-128", 83.7),
        ("titok-b-64", 204.8),
        ("titok-l-32", 641.1),
    ],
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    variant = zoo.info(name)
    with torch.device("meta"):
        tokenizer = variant.builder(variant.spec, **variant.config)
    assert tokenizer.num_parameters / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("family", ["titok", "one-d-piece"])
def test_a_family_stands_for_its_variant_of_the_lowest_published_fid(family):
    fids = {
        name: variant.figures["rFID, ImageNet 256x256"]
        for name in zoo.list_tokenizers(modality="image")
        if (variant := zoo.info(name)).card == family
    }
    assert len(fids) == 3
    assert zoo.info(family).name == min(fids, key=fids.get)


@pytest.mark.slow
def test_the_first_16_and_64_tokens_decode_as_the_authors_do(tmp_path):
    golden = np.load(GOLDENS / ONE_D_PIECE / "golden.npz")
    torch.save(synthetic_checkpoint(read_manifest(GOLDENS / ONE_D_PIECE / "manifest.json")), tmp_path / "weights.bin")
    tokenizer = zoo.load(ONE_D_PIECE, weights=tmp_path / "weights.bin")
    codes = torch.from_numpy(golden["codes"])
    for num_tokens in (16, 64):
        expected = torch.from_numpy(golden[f"reconstruction_{num_tokens}"]).clamp(0, 1)
        difference = (tokenizer.decode(codes, num_tokens=num_tokens) - expected).abs().max()
        assert difference < 1e-3
        assert (tokenizer.decode(codes) - expected).abs().max() > 1e-2
