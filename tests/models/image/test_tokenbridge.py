"""TokenBridge against a plain computation from the published keys, at a small width, and its golden's other arrays."""

import json
import math

import numpy as np
import pytest
import torch

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_tokenbridge import (
    CHANNEL_ORDER,
    DIM,
    SCALE,
    WIDTH,
    PlainTaming,
    checkpoint,
    image,
    levels,
    published_shapes,
    small,
    write_golden,
)
from zoo.checkpoints import assign, without_storage
from zoo.models.image.tokenbridge import CHECKPOINT, TokenBridge
from zoo.parity import parity, synthetic_checkpoint
from zoo.quantizers import DimensionwiseQuantizer

GOLDEN = GOLDENS / "tokenbridge-kl16"


@pytest.fixture
def small_variant(registrations) -> str:
    published = zoo.info("tokenbridge-kl16")
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
    mean, log_variance = PlainTaming(checkpoint(5)).encode(x).chunk(2, dim=1)
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
        tokenizer.encoder.head.project.bias[DIM:] = 1e4
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
    trunk = encoder.trunk
    stages = {"enc_conv_in": trunk.stem, "enc_attn": trunk.levels[-1].attentions[0], "enc_mid": trunk.mid}
    stages |= {f"enc_down{i}": level.attentions[-1] for i, level in enumerate(trunk.levels)}
    stages |= {"dec_conv_in": decoder.stem, "dec_mid": decoder.mid}
    stages |= {f"dec_up{i}": level.attentions[-1] for i, level in enumerate(decoder.levels[::-1])}
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
