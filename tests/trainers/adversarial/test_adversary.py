"""Training against discriminators: both steps, their order, their start, what a checkpoint holds."""

import math

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from tests.support.recipes import AUDIO, IMAGE, losses
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.adversarial.adversary import make_discriminators
from zoo.trainers.adversarial.losses import GAN_LOSSES
from zoo.trainers.data.batches import Crops, to_signal, training_batches
from zoo.trainers.data.signals import Signals
from zoo.trainers.trainer import Trainer

PATCHGAN = {"weight": 0.1, "arguments": {"width": 8, "num_layers": 2}}
ADVERSARIAL_IMAGE = {**IMAGE, "steps": 4, "adversarial": {"discriminators": {"patchgan": PATCHGAN}}}
ADVERSARIAL_AUDIO = {
    **AUDIO,
    "steps": 4,
    "adversarial": {
        "discriminators": {
            "multi_period": {
                "arguments": {"periods": [2, 3], "widths": [4, 8]},
                "loss": "least_squares",
                "weight": 0.5,
                "feature_matching": 2.0,
            },
            "multi_resolution_stft": {"arguments": {"windows": [512], "width": 4}, "weight": 1.0},
        }
    },
}


def start(values, data) -> tuple[Trainer, list[torch.Tensor]]:
    """A trainer on one process, and its batches."""
    recipe = load_recipe({}, values)
    trainer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe))
    signals = Signals(data / "train", trainer.tokenizer.spec, trainer.recipe.data)
    return trainer, list(training_batches(Crops(signals, recipe.data, recipe.seed), recipe, step=0))


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def are_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("values, folder", [(ADVERSARIAL_IMAGE, "images"), (ADVERSARIAL_AUDIO, "speech")])
def test_the_terms_of_every_discriminator_are_logged(values, folder, request, tmp_path):
    train({}, values, data=request.getfixturevalue(folder), run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    for name, options in values["adversarial"]["discriminators"].items():
        assert {f"{name}_generator_loss", f"{name}_discriminator_loss"} <= logged[4].keys()
        assert (f"{name}_feature_matching" in logged[4]) == ("feature_matching" in options)
    assert all(math.isfinite(value) for value in logged[4].values())


def test_the_loss_is_that_of_the_recipe_and_the_weighted_judgements(speech):
    trainer, batches = start(ADVERSARIAL_AUDIO, speech)
    trainer.advance(iter(batches))
    values = trainer.mean_losses()
    expected = values["mel"] + values["commitment_loss"] + 0.5 * values["multi_period_generator_loss"]
    expected += 2.0 * values["multi_period_feature_matching"] + values["multi_resolution_stft_generator_loss"]
    assert values["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_step_is_that_of_plain_pytorch(images):
    # Without batch norm, whose statistics both steps move.
    discriminator = {"weight": 0.5, "arguments": {"resolution": 16, "channel_base": 64}, "feature_matching": 3.0}
    values = {**IMAGE, "losses": {"l1": 1.0}, "optimizer.clip_norm": math.inf, "optimizer.warmup_steps": 0}
    values["adversarial"] = {"discriminators": {"stylegan": discriminator}, "optimizer": {"warmup_steps": 0}}
    trainer, batches = start(values, images)

    recipe = load_recipe({}, values)
    tokenizer, network = create_tokenizer(recipe).train(), make_discriminators(recipe, recipe.adversarial)
    original = to_signal(batches[0])
    reconstruction = tokenizer(original).reconstruction
    real, fake = (network.families["stylegan"](2 * signal - 1)[0] for signal in (original, reconstruction))
    matching = sum((ours.detach() - theirs).abs().mean() for ours, theirs in zip(real[1], fake[1], strict=True))
    loss = functional.l1_loss(reconstruction, original) - 0.5 * fake[0].mean() + 3.0 * matching
    gradients = torch.autograd.grad(loss, list(tokenizer.parameters()), retain_graph=True)
    fake = network.families["stylegan"](2 * reconstruction.detach() - 1)[0]
    theirs = torch.autograd.grad(GAN_LOSSES["hinge"][0](real[0], fake[0]), list(network.parameters()))

    before = weights(trainer.tokenizer), weights(trainer.adversary.network)
    trainer.advance(iter(batches))
    for module, kept, expected in zip(
        (trainer.tokenizer, trainer.adversary.network), before, (gradients, theirs), strict=True
    ):
        # The first step of Adam goes down each gradient's sign.
        for parameter, old, gradient in zip(module.parameters(), kept, expected, strict=True):
            clear = gradient.abs() > 1e-4
            assert torch.equal((old - parameter)[clear].sign(), gradient[clear].sign())
    assert trainer.mean_losses()["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_before_its_start_the_discriminator_has_no_part(images):
    values = {**ADVERSARIAL_IMAGE, "adversarial.start_step": 2}
    trainer, batches = start(values, images)
    alone, _ = start({**IMAGE, "steps": 4}, images)
    fresh = weights(trainer.adversary.network)
    for step in range(2):
        trainer.advance(iter(batches[step:]))
        alone.advance(iter(batches[step:]))
        assert "patchgan_generator_loss" not in trainer.mean_losses()
    assert are_equal(weights(trainer.tokenizer), weights(alone.tokenizer))
    assert are_equal(weights(trainer.adversary.network), fresh)
    trainer.advance(iter(batches[2:]))
    alone.advance(iter(batches[2:]))
    assert "patchgan_generator_loss" in trainer.mean_losses()
    assert not are_equal(weights(trainer.tokenizer), weights(alone.tokenizer))
    assert not are_equal(weights(trainer.adversary.network), fresh)


def test_who_steps_first_decides_which_discriminator_judges(images):
    values = {**ADVERSARIAL_IMAGE, "losses": {"l1": 1.0}, "adversarial.optimizer.learning_rate": 5e-4}
    judgements = {}
    for first in ("generator", "discriminator"):
        trainer, batches = start({**values, "adversarial.first": first}, images)
        trainer.advance(iter(batches))
        judgements[first] = trainer.mean_losses()
    first, second = judgements["generator"], judgements["discriminator"]
    assert first["patchgan_discriminator_loss"] == pytest.approx(second["patchgan_discriminator_loss"], rel=1e-4)
    # One that has learned takes the reconstruction for what it is.
    assert second["patchgan_generator_loss"] > first["patchgan_generator_loss"] + 0.1


def test_accumulated_passes_are_one_large_batch(images):
    discriminator = {"weight": 0.5, "arguments": {"resolution": 16, "channel_base": 64}}
    # More channels than groups of the norms, before which a bias would have no gradient but rounding's.
    values = {**IMAGE, "config.width": 64, "losses": {"l1": 1.0}}
    values["adversarial"] = {"discriminators": {"stylegan": discriminator}}
    large, whole = start({**values, "batch_size": 4}, images)
    small, parts = start({**values, "accumulate": 2}, images)
    large.advance(iter(whole))
    small.advance(iter(parts))
    for ours, theirs in ((large.optimizer, small.optimizer), (large.adversary.optimizer, small.adversary.optimizer)):
        ours, theirs = (optimizer.state_dict()["state"].values() for optimizer in (ours, theirs))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a["exp_avg"], b["exp_avg"], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("option", ["lecam", "r1"])
def test_a_penalty_changes_the_discriminator_alone(option, images):
    plain, batches = start(ADVERSARIAL_IMAGE, images)
    other, _ = start({**ADVERSARIAL_IMAGE, f"adversarial.discriminators.patchgan.{option}": 10.0}, images)
    for trainer in (plain, other):
        trainer.advance(iter(batches))
    assert other.mean_losses()[f"patchgan_{option}"] > 0
    assert are_equal(weights(plain.tokenizer), weights(other.tokenizer))
    assert not are_equal(weights(plain.adversary.network), weights(other.adversary.network))


def test_the_r1_penalty_is_of_the_slope_at_what_the_discriminator_is_given(images):
    trainer, batches = start({**ADVERSARIAL_IMAGE, "adversarial.discriminators.patchgan.r1": 1.0}, images)
    network = trainer.adversary.network.families["patchgan"].eval()
    original = to_signal(batches[0])
    terms = trainer.adversary.learn(torch.zeros_like(original), original)
    given = (2 * original - 1).requires_grad_()
    ((logits, _),) = network(given)
    (slope,) = torch.autograd.grad(logits.sum(), given)
    assert terms["patchgan_r1"].item() == pytest.approx(float(slope.flatten(1).square().sum(1).mean()), rel=1e-4)


@pytest.mark.parametrize("weight", [0.1, 0.7])
def test_the_adaptive_weight_balances_gradients_at_the_last_layer_before_the_recipes_weight(weight, images):
    values = {"adversarial.adaptive_weight": True, "adversarial.discriminators.patchgan.weight": weight}
    trainer, batches = start({**ADVERSARIAL_IMAGE, **values}, images)
    last = trainer.adversary.last_layer
    assert last is trainer.tokenizer.decoder.head.weight
    output = trainer.tokenizer(original := to_signal(batches[0]))
    values = trainer.losses(output, original)
    of_reconstruction = trainer.losses.of_reconstruction(values)
    loss, terms = trainer.adversary.judge(output.reconstruction, original, of_reconstruction)
    parts = (of_reconstruction, terms["patchgan_generator_loss"], loss)
    ours, theirs, added = (torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in parts)
    assert float(terms["adaptive_weight"]) == pytest.approx(float(ours / (theirs + 1e-4)), rel=1e-3)
    assert float(added / ours) == pytest.approx(weight, rel=0.01)


def test_a_discriminator_trains_in_bfloat16_about_as_in_float32(images, tmp_path):
    values = {
        **ADVERSARIAL_IMAGE,
        "adversarial.discriminators.patchgan.lecam": 0.01,
        "adversarial.adaptive_weight": True,
    }
    for precision in ("bf16-mixed", "32-true"):
        train({}, {**values, "precision": precision}, data=images, run_dir=tmp_path / precision)
    half, whole = losses(tmp_path / "bf16-mixed")[1], losses(tmp_path / "32-true")[1]
    for name in ("patchgan_generator_loss", "patchgan_discriminator_loss", "adaptive_weight"):
        assert half[name] != whole[name]
        assert half[name] == pytest.approx(whole[name], rel=0.1, abs=0.02)
    assert all(math.isfinite(value) for value in losses(tmp_path / "bf16-mixed")[4].values())
