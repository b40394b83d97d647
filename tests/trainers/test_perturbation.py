"""Codes perturbed in training: RobusTok's rule, its schedule, what it leaves alone, and the decoder's post-training."""

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch.nn import functional

import zoo
from tests.support.recipes import AUDIO, IMAGE, VQ_IMAGE, losses
from tests.support.runs import without_its_last_checkpoint
from zoo.errors import InputError
from zoo.metrics.perturbation import perturb_codes
from zoo.quantizers import VectorQuantizer
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.perturbation import LatentPerturbation
from zoo.trainers.recipe import Perturbation
from zoo.trainers.trainer import Trainer


def vectors(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_some_vectors_become_those_of_codes_near_to_the_encoders(distance):
    quantizer = VectorQuantizer(6, 50, distance=distance)
    plain = quantizer(z := vectors((4, 5, 7, 6)).requires_grad_())
    quantizer.register_forward_hook(LatentPerturbation(quantizer, Perturbation(alpha=0.6, delta=8, beta=0.8)))
    torch.manual_seed(1)
    output = quantizer(z)
    torch.manual_seed(1)
    drawn, rank = torch.rand(3, 5, 7), torch.randint(8, (3, 5, 7))
    latent = functional.normalize(z, dim=-1) if distance == "cosine" else z
    order = torch.cdist(latent.double(), quantizer.rows().double()).argsort(dim=-1)
    expected = plain.quantized.clone()
    for position in ((drawn < 0.6) & (rank > 0)).nonzero().tolist():
        expected[tuple(position)] = quantizer.rows()[order[(*position, rank[tuple(position)])]]
    torch.testing.assert_close(output.quantized, expected)
    assert (output.quantized[:3] != plain.quantized[:3]).any() and torch.equal(output.codes, plain.codes)
    assert all(torch.equal(value, plain.losses[name]) for name, value in output.losses.items())
    ours, theirs = (torch.autograd.grad((result.quantized * z.detach()).sum(), z)[0] for result in (output, plain))
    torch.testing.assert_close(ours, theirs)


def test_neighbours_of_a_vector_are_not_those_of_its_code():
    rows, latent = vectors((50, 6)), vectors((1, 400, 6))
    codes = torch.cdist(latent, rows).argmin(dim=-1)[:, None]
    options = {"alpha": 1.0, "delta": 2}
    of_latent = perturb_codes(codes, [rows], latents=[latent], generator=torch.Generator().manual_seed(0), **options)
    of_codes = perturb_codes(codes, [rows], generator=torch.Generator().manual_seed(0), **options)
    changed = of_latent != codes
    assert torch.equal(changed, of_codes != codes)
    second = torch.cdist(latent, rows).topk(2, largest=False).indices[..., 1][:, None]
    assert torch.equal(of_latent[changed], second[changed])
    assert (of_latent != of_codes).any()


def test_rate_and_strength_fall_between_their_steps():
    options = Perturbation(alpha=1.0, delta=100, anneal=(40, 120), final_factor=0.5)
    perturbation = LatentPerturbation(VectorQuantizer(2, 4), options)
    factors = []
    for step in (0, 40, 80, 120, 1000):
        perturbation.step = step
        factors.append(perturbation.factor)
    assert factors == [1.0, 1.0, 0.75, 0.5, 0.5]


def test_a_run_follows_the_schedule(images, tmp_path):
    # From the third step on nothing is perturbed: the factor is 0.
    values = {**VQ_IMAGE, "optimizer.learning_rate": 0.0, "optimizer.warmup_steps": 0, "data.flip": False}
    perturbation = {"beta": 1.0, "delta": 64, "anneal": [1, 2], "final_factor": 0.0}
    train({}, values, data=images / "train", run_dir=tmp_path / "plain")
    train({}, {**values, "perturbation": perturbation}, data=images / "train", run_dir=tmp_path / "perturbed")
    plain, perturbed = losses(tmp_path / "plain"), losses(tmp_path / "perturbed")
    assert [plain[step] == perturbed[step] for step in (1, 2, 3, 4)] == [False, False, True, True]
    assert all(plain[step]["commitment_loss"] == perturbed[step]["commitment_loss"] for step in plain)


@pytest.mark.parametrize("values, folder", [(VQ_IMAGE, "images"), (AUDIO, "speech")])
def test_a_perturbed_run_resumes_step_for_step_and_its_weights_know_nothing_of_it(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    values = {**values, "perturbation": {"beta": 0.5, "anneal": [2, 4]}, "checkpoint_every": 2}
    whole = train({}, values, data=data, run_dir=tmp_path / "whole")
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    again = train({}, values, data=data, run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir) and again.metrics == whole.metrics
    tokenizer = zoo.load(whole.weights)
    signal = torch.rand(2, 3, 16, 16) if folder == "images" else torch.rand(2, 1, 2400)
    with torch.no_grad():
        output = tokenizer(signal)
    torch.testing.assert_close(output.latent, tokenizer.embed(output.codes))


def test_the_averaged_network_is_not_perturbed():
    recipe = load_recipe({}, {**VQ_IMAGE, "perturbation.beta": 1.0})
    trainer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe))
    averaged, images = trainer.averaged(), torch.rand(2, 3, 16, 16)
    assert torch.equal(averaged(images).latent, averaged(images).latent)
    assert not torch.equal(trainer.tokenizer(images).latent, averaged(images).latent)


def test_a_decoder_is_trained_further_on_perturbed_codes_of_a_frozen_encoder(images, tmp_path):
    first = train({}, VQ_IMAGE, data=images / "train", run_dir=tmp_path / "first")
    post = {
        **VQ_IMAGE,
        "weights": str(first.weights),
        "freeze": ["encoder", "quantizer"],
        "losses": {"l2": 1.0},
        "perturbation": {"alpha": 0.3, "delta": 32, "beta": 1.0},
    }
    second = train({}, post, data=images / "train", run_dir=tmp_path / "second")
    before, after = load_file(first.weights), load_file(second.weights)
    for key, value in before.items():
        assert key.startswith("decoder.") or torch.equal(value, after[key]), key
    assert any(not torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize(
    "values, message",
    [
        ({**IMAGE, "perturbation.beta": 1.0}, r"perturbation is for a VectorQuantizer, got a GroupedLFQ"),
        ({**VQ_IMAGE, "perturbation": {}}, r"perturbation.beta=0.1 of batch_size=2 is less than one item"),
        ({**VQ_IMAGE, "perturbation.alpha": 1.5}, r"expected perturbation.alpha from 0 to 1, got 1.5"),
        ({**VQ_IMAGE, "perturbation.delta": 0}, r"expected perturbation.delta of at least 1, got 0"),
        (
            {**VQ_IMAGE, "perturbation.anneal": [4, 2]},
            r"expected perturbation.anneal as two rising steps, got \[4, 2\]",
        ),
        (
            {**VQ_IMAGE, "perturbation.gamma": 1},
            r"unknown key perturbation.gamma; accepted: alpha, anneal, beta, delta",
        ),
    ],
)
def test_a_perturbation_that_cannot_be_is_named(values, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, values, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
