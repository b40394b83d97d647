"""DPLM-2's structure tokenizer against a plain computation from the published keys, and its behaviour."""

import pytest
import torch
from torch import tensor

import zoo
from tests.support.paths import GOLDENS
from tests.support.plain_dplm2 import CONFIG, Plain, plain_unit, published_shapes
from zoo.checkpoints import assign, without_storage
from zoo.models.structure.dplm2.tokenizer import CHECKPOINT
from zoo.parity import read_golden, read_manifest, synthetic_checkpoint

GOLDEN = GOLDENS / "dplm2-struct-tokenizer"


def chain(residues: int, seed: int) -> torch.Tensor:
    """A random walk of residues with realistic distances, `[residues, 5, 3]`, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    steps = plain_unit(torch.randn(residues, 3, generator=generator) + tensor([0.8, 0.3, 0.0]))
    alpha = 3.8 * steps.cumsum(0) + tensor([20.0, -8.0, 5.0])
    others = alpha[:, None] + 1.5 * plain_unit(torch.randn(residues, 4, 3, generator=generator))
    return torch.cat([others[:, :1], alpha[:, None], others[:, 1:]], 1)


def load(config: dict, tensors: dict, seed: int = 0) -> tuple[zoo.Tokenizer, dict]:
    published = synthetic_checkpoint({"tensors": tensors, "layout": [], "seed": seed})
    variant = zoo.info("dplm2")
    with without_storage():
        tokenizer = variant.builder(variant.spec, **config)
    assign(tokenizer, CHECKPOINT.convert(published, tokenizer.state_dict(), "synthetic"))
    return tokenizer.eval(), published


def load_small(seed: int = 0) -> tuple[zoo.Tokenizer, Plain]:
    tensors = {key: {"shape": shape, "dtype": "float32"} for key, shape in published_shapes().items()}
    tensors["encoder.encoder.embed_tokens.weight"]["std"] = 0.1
    tensors["decoder.trunk.structure_module.bb_update.linear.weight"]["std"] = 0.1
    tokenizer, published = load(CONFIG, tensors, seed)
    return tokenizer, Plain(published)


@pytest.fixture(scope="module")
def small() -> zoo.Tokenizer:
    return load_small()[0]


@pytest.mark.parametrize(("residues", "batch", "seed"), [(36, 1, 0), (9, 3, 5), (3, 2, 1), (2, 2, 2), (1, 2, 3)])
@torch.no_grad()
def test_small_dplm2_computes_what_its_description_says(residues, batch, seed):
    tokenizer, plain = load_small(seed)
    atoms = torch.stack([chain(residues, seed + i) for i in range(batch)])
    if residues > 4:
        atoms[:, 2] = torch.nan
        atoms[0, [3, residues - 1], 1] = torch.nan  # N and C alone do not make a residue
        atoms[-1, 5, 0] = torch.nan  # a residue without N does count
    mask = ~atoms[:, :, 1, 0].isnan()
    latent = tokenizer.to_latent(atoms).movedim(1, -1)
    expected = torch.stack([plain.encode(item) for item in atoms])
    assert (latent - expected).abs().max() < 2e-4
    assert latent.std() > 0.1
    codes = tokenizer.encode(atoms)
    bits = expected > 0
    assert torch.equal(codes[:, 0], sum(bits[..., k].long() * 2 ** (12 - k) for k in range(13)))
    prediction = tokenizer.predict(codes, mask=mask)
    for i in range(batch):
        own, signs = mask[i], torch.where(bits[i], 1.0, -1.0)
        atoms, plddt, residue_types = plain.decode(signs, own)
        assert (prediction.atoms[i] - atoms)[own].abs().max() < 1e-3
        assert prediction.atoms[i][~own].isnan().all()
        assert (prediction.plddt[i] - plddt)[own].abs().max() < 1e-2
        assert torch.equal(prediction.residue_types[i][own], residue_types[own])
    assert torch.equal(tokenizer.decode(codes, mask=mask).nan_to_num(), prediction.atoms.nan_to_num())


def turned(atoms: torch.Tensor) -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
    rotation = rotation * rotation.det().sign()
    return atoms @ rotation.T + tensor([-30.0, 4.0, 11.0])


@torch.no_grad()
def test_a_chain_has_the_same_tokens_wherever_it_lies(small):
    whole = chain(40, 1)[None]
    latent = small.to_latent(whole)
    assert (small.to_latent(turned(whole)) - latent).abs().max() < 2e-3
    assert torch.equal(small.encode(turned(whole)), small.encode(whole))
    lacking = whole.clone()
    lacking[0, [7, 20]] = torch.nan
    assert (small.to_latent(turned(lacking)) - small.to_latent(lacking)).abs().max() < 2e-3
    mirrored = whole * tensor([1.0, 1.0, -1.0])
    assert (small.to_latent(mirrored) - latent).abs().max() > 0.1


@torch.no_grad()
def test_absent_residues_are_seen_at_the_origin(small):
    backbone = chain(20, 2)[None, :, :3]
    backbone = backbone - backbone.mean((1, 2))
    present = torch.ones(1, 20, dtype=torch.bool)
    network = small.encoder.esm_if1
    shift = tensor([6.0, 0.0, 0.0])
    assert (network(backbone + shift, present) - network(backbone, present)).abs().max() < 2e-3
    present[0, 8] = False
    absent = present[..., None, None]
    assert (network((backbone + shift) * absent, present) - network(backbone * absent, present)).abs().max() > 0.05


@torch.no_grad()
def test_a_masked_residue_is_not_seen_by_the_decoder(small):
    codes = torch.randint(8192, (2, 1, 25), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 25, dtype=torch.bool)
    mask[0, 4:9] = mask[1, 20:] = False
    atoms = small.decode(codes, mask=mask)
    assert torch.equal(atoms.isnan().all(-1).all(-1), ~mask)
    changed = torch.where(mask[:, None], codes, 8191 - codes)
    assert torch.equal(small.decode(changed, mask=mask)[mask], atoms[mask])
    assert (small.decode(codes)[mask] - atoms[mask]).abs().max() > 1e-3
    assert torch.equal(small.decode(codes, mask=mask.float())[mask], atoms[mask])
    # Behind its end a chain may be padded as long as the padding is masked.
    assert torch.allclose(small.decode(codes[1:, :, :20]), atoms[1:, :20], atol=2e-3)


@torch.no_grad()
def test_a_chain_decodes_the_same_alone_and_in_a_batch(small):
    codes = torch.randint(8192, (3, 1, 30), generator=torch.Generator().manual_seed(1))
    together = small.decode(codes)
    for i in range(3):
        assert torch.allclose(small.decode(codes[i : i + 1]), together[i : i + 1], atol=1e-4)


def test_each_chain_of_a_padded_batch_has_the_tokens_that_it_has_alone(small):
    atoms = torch.stack([chain(33, 4), chain(33, 5)])
    codes = small.encode(atoms, lengths=tensor([33, 21]))
    assert torch.equal(codes[1:, :, :21], small.encode(atoms[1:, :21]))
    assert not torch.equal(codes[1:, :, :21], small.encode(atoms[1:])[:, :, :21])


def test_residues_keep_the_shape_of_alanine_also_in_half_precision():
    codes = torch.randint(8192, (1, 1, 12), generator=torch.Generator().manual_seed(0))
    tokenizer = load_small()[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = tokenizer.decode(codes)
    for atoms in (tokenizer.decode(codes), mixed, tokenizer.bfloat16().decode(codes)):
        assert atoms.dtype == torch.float32
        nitrogen, alpha, carbon, beta, oxygen = atoms[0].unbind(1)
        for first, second, distance in (
            (nitrogen, alpha, 1.4606),
            (alpha, carbon, 1.526),
            (alpha, beta, 1.5269),
            (carbon, oxygen, 1.2333),
        ):
            assert (first - second).norm(dim=-1) == pytest.approx(distance, abs=1e-3)


@torch.no_grad()
def test_latents_decode_before_they_are_quantized(small):
    latent = small.to_latent(chain(15, 0)[None])
    assert (small.from_latent(latent) - small.decode(small.encode(chain(15, 0)[None]))).abs().max() > 0.01


def test_training_leaves_absent_residues_out():
    tokenizer = load_small()[0].train()
    atoms = torch.stack([chain(14, 0), chain(14, 1)])
    atoms[0, 3:6] = torch.nan
    mask = ~atoms[:, :, 1, 0].isnan()
    output = tokenizer(atoms)
    assert torch.equal(output.codes, tokenizer.encode(atoms))
    assert not output.codes.movedim(1, -1)[~mask].any()
    assert torch.equal(output.latent, tokenizer.embed(output.codes))
    latent = tokenizer.to_latent(atoms).movedim(1, -1)
    assert not latent[~mask].any()
    for name, loss in tokenizer.quantizer(latent[mask]).losses.items():
        assert torch.equal(output.losses[name], loss)
    assert torch.equal(output.reconstruction.isnan().all(-1).all(-1), ~mask)
    assert torch.allclose(output.reconstruction[mask], tokenizer.reconstruct(atoms)[mask], atol=1e-3)
    output.reconstruction[mask].square().mean().backward()
    for part in (tokenizer.encoder.esm_if1, tokenizer.encoder.head):
        assert sum(parameter.grad.abs().sum() for parameter in part.parameters() if parameter.grad is not None) > 0


def test_a_chain_without_a_single_ca_has_code_zero_throughout(small):
    atoms = chain(6, 0)[None]
    atoms[:, :, 1] = torch.nan
    assert not small.encode(atoms).any()
    assert small.reconstruct(atoms).isnan().all()


def test_a_mask_of_another_shape_is_refused(small):
    codes = torch.zeros(2, 1, 5, dtype=torch.int64)
    for mask, got in ((torch.ones(2, 4), r"\[2, 4\]"), ([True] * 5, "list")):
        for call in (small.decode, small.predict):
            with pytest.raises(zoo.InputError, match=rf"expected mask as \[2, 5\], got {got}"):
                call(codes, mask=mask)


def test_the_published_variant_has_the_published_number_of_parameters():
    variant = zoo.info("dplm2")
    with torch.device("meta"):
        tokenizer = variant.builder(variant.spec, **variant.config)
    unused = 34 * 512  # tokens that the encoder never sees
    assert sum(p.numel() for p in tokenizer.encoder.esm_if1.parameters()) == 107_993_030 - unused
    assert sum(p.numel() for p in tokenizer.encoder.head.parameters()) == 7_875


@pytest.fixture(scope="module")
def full() -> tuple[zoo.Tokenizer, dict, dict]:
    tokenizer, published = load({}, read_manifest(GOLDEN / "manifest.json")["tensors"])
    return tokenizer, published, read_golden(GOLDEN / "golden.npz")[0]


def public_atoms(backbone: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    atoms = torch.nn.functional.pad(backbone, (0, 0, 0, 2), value=torch.nan)
    return atoms.masked_fill(mask[..., None, None] == 0, torch.nan)


@pytest.mark.slow
@torch.no_grad()
def test_stages_inside_the_network_are_those_of_the_authors(full):
    tokenizer, _, golden = full
    found = {}

    def keep(name, module, pick=lambda output: output):
        module.register_forward_hook(lambda module, inputs, output: found.update({name: pick(output)}))

    encoder, decoder = tokenizer.encoder.esm_if1, tokenizer.decoder
    keep("gvp_scalar", encoder.graph, lambda output: output[0][:, :16])
    keep("encoder_out", encoder)
    keep("post_quant", decoder.norm)
    keep("block0_single", decoder.trunk.blocks[0], lambda output: output[0])
    keep("block0_pair_rows", decoder.trunk.blocks[0], lambda output: output[1][:, :4])
    keep("single", decoder.trunk, lambda output: output[0])
    keep("angles", decoder.structure.angles)
    tokenizer.to_latent(public_atoms(golden["input"], golden["mask"]))
    prediction = tokenizer.predict(golden["codes"][:, None])
    limits = {"gvp_scalar": 5e-4, "encoder_out": 5e-3, "post_quant": 1e-4, "single": 1e-3, "angles": 1e-3}
    for name, array in found.items():
        assert (array - golden[name]).abs().max() < limits.get(name, 1e-3), name
    assert (prediction.atoms - golden["atoms"]).abs().max() < 1e-2
    assert (prediction.plddt - golden["plddt"]).abs().max() < 1e-2
    assert torch.equal(prediction.residue_types, golden["aatype"])


@pytest.mark.slow
@torch.no_grad()
def test_the_authors_padded_batch_differs_as_far_as_a_chain_sees_its_padding(full):
    tokenizer, published, golden = full
    mask = golden["pad_mask"].bool()
    atoms = public_atoms(golden["pad_input"], mask)
    codes = tokenizer.encode(atoms, lengths=golden["pad_seq_length"])[:, 0]
    assert torch.equal(codes[0], golden["pad_codes"][0])  # the longest: without padding, with a residue masked
    # The other chain sees its padding in the authors' batch: with it the plain computation gives their latent,
    # without it ours.
    length = int(golden["pad_seq_length"][1])
    plain = Plain({key: value for key, value in published.items() if not key.startswith("decoder.")})
    assert (plain.encode(atoms[1], length) - golden["pad_latent"][1]).abs().max() < 5e-3
    assert (plain.encode(atoms[1, :length]) - tokenizer.to_latent(atoms[1:, :length])[0].T).abs().max() < 5e-3
    assert not torch.equal(codes[1], golden["pad_codes"][1])
    decoded = tokenizer.decode(golden["pad_codes"][:, None], mask=mask)
    assert (decoded[:, :, :3] - golden["pad_reconstruction"])[mask].abs().max() < 1e-2
