"""TokenBridge against a plain computation from the published keys, at a small width, and its golden's other arrays."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo import registry
from zoo.checkpoints import assign, without_storage
from zoo.models.image.tokenbridge import CHECKPOINT, TokenBridge
from zoo.parity import parity, synthetic_checkpoint
from zoo.quantizers import DimensionwiseQuantizer

GOLDEN = Path(__file__).parent / "parity" / "tokenbridge-kl16"
WIDTH, DIM, SCALE = 32, 16, 0.2325
MULTIPLIERS = (1, 1, 2, 2, 4)
# The order in which the authors' generator predicts the channels of a position.
CHANNEL_ORDER = [8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5]


def published_shapes(width: int) -> dict[str, list[int]]:
    """The parameter names and shapes of the authors' file, from its description."""
    channels = [width * multiplier for multiplier in MULTIPLIERS]
    shapes: dict[str, list[int]] = {}

    def norm(key: str, c: int) -> None:
        shapes[f"{key}.weight"] = shapes[f"{key}.bias"] = [c]

    def conv(key: str, c_in: int, c_out: int, kernel: int = 3) -> None:
        shapes[f"{key}.weight"] = [c_out, c_in, kernel, kernel]
        shapes[f"{key}.bias"] = [c_out]

    def block(key: str, c_in: int, c_out: int) -> None:
        norm(f"{key}.norm1", c_in)
        conv(f"{key}.conv1", c_in, c_out)
        norm(f"{key}.norm2", c_out)
        conv(f"{key}.conv2", c_out, c_out)
        if c_in != c_out:
            conv(f"{key}.nin_shortcut", c_in, c_out, 1)

    def attention(key: str, c: int) -> None:
        norm(f"{key}.norm", c)
        for name in ("q", "k", "v", "proj_out"):
            conv(f"{key}.{name}", c, c, 1)

    for side, c_in, c_out in (("encoder", 3, width), ("decoder", DIM, channels[-1])):
        conv(f"{side}.conv_in", c_in, c_out)
        block(f"{side}.mid.block_1", channels[-1], channels[-1])
        attention(f"{side}.mid.attn_1", channels[-1])
        block(f"{side}.mid.block_2", channels[-1], channels[-1])
    for i, c in enumerate(channels):
        for j in range(2):
            block(f"encoder.down.{i}.block.{j}", [width, *channels][i] if j == 0 else c, c)
        for j in range(3):
            block(f"decoder.up.{i}.block.{j}", channels[min(i + 1, 4)] if j == 0 else c, c)
        if i < 4:
            conv(f"encoder.down.{i}.downsample.conv", c, c)
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv", c, c)
    for j in range(2):
        attention(f"encoder.down.4.attn.{j}", channels[-1])
    norm("encoder.norm_out", channels[-1])
    conv("encoder.conv_out", channels[-1], 2 * DIM)
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", width, 3)
    conv("quant_conv", 2 * DIM, 2 * DIM, 1)
    conv("post_quant_conv", DIM, DIM, 1)
    return shapes


class PlainKL16:
    """The autoencoder as its description states it, reading weights under their published names."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def conv(self, x, key, **options):
        return F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], **options)

    def norm(self, x, key):
        groups = min(32, x.shape[1] // 4)
        return F.group_norm(x, groups, self.state[f"{key}.weight"], self.state[f"{key}.bias"], eps=1e-6)

    def norm_swish(self, x, key):
        x = self.norm(x, key)
        return x * torch.sigmoid(x)

    def block(self, x, key):
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1", padding=1)
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2", padding=1)
        return h + (self.conv(x, f"{key}.nin_shortcut") if f"{key}.nin_shortcut.weight" in self.state else x)

    def attention(self, x, key):
        q, k, v = (self.conv(self.norm(x, f"{key}.norm"), f"{key}.{name}").flatten(2) for name in "qkv")
        weights = torch.softmax(torch.einsum("bcp,bcs->bps", q, k) / math.sqrt(x.shape[1]), dim=2)
        return x + self.conv(torch.einsum("bps,bcs->bcp", weights, v).reshape(x.shape), f"{key}.proj_out")

    def middle(self, x, side):
        x = self.attention(self.block(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self.block(x, f"{side}.mid.block_2")

    def moments(self, x):
        x = self.conv(x, "encoder.conv_in", padding=1)
        for i in range(5):
            for j in range(2):
                x = self.block(x, f"encoder.down.{i}.block.{j}")
                if i == 4:
                    x = self.attention(x, f"encoder.down.4.attn.{j}")
            if i < 4:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", stride=2)
        x = self.norm_swish(self.middle(x, "encoder"), "encoder.norm_out")
        return self.conv(self.conv(x, "encoder.conv_out", padding=1), "quant_conv")

    def decode(self, z):
        x = self.middle(self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder")
        for i in (4, 3, 2, 1, 0):
            for j in range(3):
                x = self.block(x, f"decoder.up.{i}.block.{j}")
            if i > 0:
                wide = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(wide, f"decoder.up.{i}.upsample.conv", padding=1)
        return self.conv(self.norm_swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)


def levels(bits: int) -> torch.Tensor:
    """The published levels of latents with unit deviation, by torch's own distribution in float64."""
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    edges = normal.icdf(torch.linspace(0, 1, 2**bits + 1, dtype=torch.float64)).clamp(-3, 3)
    density = normal.log_prob(edges).exp()
    means = (density[:-1] - density[1:]) / (normal.cdf(edges[1:]) - normal.cdf(edges[:-1]))
    return (means * 5 / 3).float()


def manifest(seed: int) -> dict:
    tensors = {key: {"shape": shape, "dtype": "float32"} for key, shape in published_shapes(WIDTH).items()}
    # Latents that use most of the levels, and a posterior that is wide enough to be seen in the codes.
    tensors["quant_conv.weight"]["std"] = 1.5
    return {
        "tensors": tensors,
        "layout": ["model"],
        "seed": seed,
        "axes": {"input": "b c h w", "codes": "b q h w", "reconstruction": "b c h w"},
        "tolerance": {
            "code_agreement": 0.999,
            "latent_max_abs": 1e-4,
            "quantized_max_abs": 1e-5,
            "reconstruction_max_abs": 1e-4,
        },
    }


@cache
def checkpoint(seed: int) -> dict[str, torch.Tensor]:
    return synthetic_checkpoint(manifest(seed))["model"]


def image(size: tuple[int, int], batch: int, seed: int) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def write_golden(folder: Path, size: tuple[int, int], batch: int, seed: int) -> tuple[Path, Path]:
    plain = PlainKL16(checkpoint(seed))
    x = image(size, batch, seed)
    latent = plain.moments(x)[:, :DIM] * SCALE
    codes = (latent[..., None] - levels(6)).abs().argmin(-1)
    quantized = levels(6)[codes]
    arrays = {
        "input": x,
        "latent": latent,
        "codes": codes,
        "quantized": quantized,
        "reconstruction": plain.decode(quantized / SCALE),
    }
    assert codes.unique().numel() > 40
    (folder / "manifest.json").write_text(json.dumps(manifest(seed)))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


def small(seed: int) -> TokenBridge:
    """The small network with the weights of a synthetic checkpoint in the published layout."""
    with without_storage():
        tokenizer = TokenBridge(zoo.info("tokenbridge").spec, latent_scale=SCALE, width=WIDTH)
    assign(tokenizer, CHECKPOINT.convert({"model": checkpoint(seed)}, tokenizer.state_dict(), "synthetic"))
    return tokenizer.eval()


@pytest.fixture
def small_variant(monkeypatch) -> str:
    published = zoo.info("tokenbridge-kl16")
    monkeypatch.setattr(registry, "_variants", dict(registry._variants))
    spec = type(published.spec)(**{**vars(published.spec), "name": "tokenbridge-small"})
    config = {**published.config, "width": WIDTH}
    zoo.register(spec.name, TokenBridge, spec=spec, config=config, keys=CHECKPOINT, card="tokenbridge")
    return spec.name


@pytest.mark.parametrize(("size", "batch", "seed"), [((64, 64), 1, 0), ((48, 80), 3, 7)])
def test_small_network_computes_what_its_description_says(small_variant, tmp_path, size, batch, seed):
    report = parity(small_variant, *write_golden(tmp_path, size, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report


def test_weights_of_another_seed_are_not_at_parity(small_variant, tmp_path):
    report = parity(small_variant, *write_golden(tmp_path, (64, 64), 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def test_a_generator_draws_the_latent_from_the_posterior():
    tokenizer, x = small(5), image((32, 48), 2, 5)
    mean, log_variance = PlainKL16(checkpoint(5)).moments(x).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(9))
    latent = (mean + torch.exp(log_variance / 2) * noise) * SCALE
    codes = (latent[..., None] - levels(6)).abs().argmin(-1)
    drawn = [tokenizer.encode((x + 1) / 2, generator=torch.Generator().manual_seed(seed)) for seed in (9, 9, 10)]
    assert (drawn[0] == codes).float().mean() > 0.999
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    mode = tokenizer.encode((x + 1) / 2)
    assert torch.equal(mode, tokenizer.encode((x + 1) / 2))
    assert (mode != drawn[0]).float().mean() > 0.1


def test_log_variances_are_clamped_as_published():
    tokenizer, x = small(0), image((32, 32), 1, 0)
    with torch.no_grad():
        tokenizer.encoder.moments.bias[DIM:] = 1e4
        latent = tokenizer.to_latent(x, generator=torch.Generator().manual_seed(0))
    assert latent.isfinite().all()
    assert latent.std() == pytest.approx(math.exp(10) * SCALE, rel=0.1)


def test_a_checkpoint_may_carry_the_training_loss_and_nothing_else():
    expected = small(0).state_dict()
    published = {**checkpoint(0), "loss.logvar": torch.zeros(())}
    CHECKPOINT.convert({"model": published}, expected, "kl16.ckpt")
    published["quantizer.scale"] = torch.ones(16)
    with pytest.raises(zoo.CheckpointError, match=r"kl16\.ckpt: 1 tensor unexpected \(quantizer\.scale\)"):
        CHECKPOINT.convert({"model": published}, expected, "kl16.ckpt")


def test_the_published_file_holds_what_the_description_lists():
    tensors = json.loads((GOLDEN / "manifest.json").read_text())["tensors"]
    assert {key: entry["shape"] for key, entry in tensors.items()} == published_shapes(128)
    with torch.device("meta"):
        tokenizer = zoo.create("tokenbridge")
    assert tokenizer.num_parameters / 1e6 == pytest.approx(66.5, abs=0.1)
    assert len(tokenizer.state_dict()) == 312


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "golden.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_levels_and_codes_are_the_authors_for_every_number_of_bits(golden, bits):
    quantizer = DimensionwiseQuantizer(1, bits=bits)
    values = quantizer.codes_to_latent(torch.arange(2**bits)[:, None])[:, 0]
    # The reference computes its table in float32, which is off at the ends.
    assert torch.allclose(values, golden[f"values_{bits}bit"], rtol=0, atol=6e-5 if bits == 8 else 1e-5)
    assert torch.allclose(values * 3 / 5, golden[f"levels_{bits}bit"], rtol=0, atol=4e-5 if bits == 8 else 6e-6)
    codes = quantizer.encode(golden["sweep_input"][:, None])[:, 0]
    tied = golden["sweep_input"].abs() < 1e-6  # between the two middle levels; rounding decided for the reference
    assert tied.nonzero()[:, 0].tolist() == [600, 1201]
    assert torch.equal(codes[~tied], golden[f"sweep_codes_{bits}bit"][~tied])
    assert codes[1201] == 2 ** (bits - 1) - 1


def test_the_nearest_level_counts_and_not_the_cell():
    latent = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    codes = DimensionwiseQuantizer(1).encode(latent)[:, 0]
    edges = torch.distributions.Normal(0.0, 1.0).icdf(torch.arange(1, 64) / 64) * 5 / 3
    assert (torch.bucketize(latent[:, 0], edges) != codes).float().mean() == pytest.approx(0.005, abs=0.002)


def test_drawn_and_quantized_latents_have_the_authors_codes(golden):
    quantizer = DimensionwiseQuantizer(16)
    mean, log_variance = golden["moments"].chunk(2, dim=1)
    drawn = (mean + torch.exp(log_variance.clamp(-30, 20) / 2) * golden["noise"]) * SCALE
    assert torch.allclose(drawn, golden["latent_sampled"], rtol=0, atol=1e-6)
    for latent, codes in (("latent", "codes"), ("latent_sampled", "codes_sampled")):
        assert torch.equal(quantizer.encode(golden[latent].movedim(1, -1)).movedim(-1, 1), golden[codes])
    quantized = quantizer.codes_to_latent(golden["codes"].movedim(1, -1)).movedim(-1, 1)
    assert torch.allclose(quantized, golden["quantized"], rtol=0, atol=1e-5)


def test_codes_of_a_position_side_by_side_are_what_the_authors_generator_predicts(golden):
    sizes = zoo.info("tokenbridge").spec.codebook_sizes
    ids = zoo.codes.flatten(golden["codes"], sizes).unflatten(1, (256, 16)) - 64 * torch.arange(16)
    assert torch.equal(ids[..., CHANNEL_ORDER], golden["ar_targets"])


@pytest.mark.slow
def test_stages_inside_the_published_network_are_the_authors(golden):
    variant = zoo.info("tokenbridge-kl16")
    with without_storage():
        tokenizer = variant.builder(variant.spec, **variant.config)
    published = synthetic_checkpoint(json.loads((GOLDEN / "manifest.json").read_text()))
    assign(tokenizer, CHECKPOINT.convert(published, tokenizer.state_dict(), "synthetic"))
    encoder, decoder = tokenizer.eval().encoder, tokenizer.decoder
    last = len(encoder.levels) - 1
    stages = {"enc_conv_in": encoder.stem, "enc_attn": encoder.attentions[0], "enc_mid": encoder.mid}
    stages |= {f"enc_down{i}": encoder.levels[i] for i in range(last)} | {f"enc_down{last}": encoder.attentions[1]}
    stages |= {"dec_conv_in": decoder.stem, "dec_mid": decoder.mid}
    stages |= {f"dec_up{i}": level for i, level in enumerate(decoder.levels)}
    outputs: dict[str, torch.Tensor] = {}
    for name, module in stages.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.__setitem__(name, output))
    with torch.inference_mode():
        assert torch.allclose(encoder(golden["input"]), golden["moments"], rtol=0, atol=5e-4)
        tokenizer.from_latent(golden["quantized"])
    compared = 0
    for name, output in outputs.items():
        found = {
            f"{name}_mean": output.mean((2, 3)),
            f"{name}_std": output.std((2, 3), correction=0),
            f"{name}_corner": output[:, :, :4, :4],
        }
        for key in found.keys() & golden.keys():
            assert torch.allclose(found[key], golden[key], rtol=1e-4, atol=2e-4), key
            compared += 1
    assert compared == sum(key.startswith(("enc_", "dec_")) for key in golden)
