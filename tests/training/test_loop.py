"""Training through its front door, on tiny networks and synthetic data."""

import pytest
import torch
from safetensors.torch import load_file

from tests.training.recipes import AUDIO, IMAGE, losses
from zoo.errors import ZooError
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.optimizers import learning_rate
from zoo.trainers.run import RunFolder


def test_the_loss_falls_on_a_few_images(images, tmp_path):
    train({}, {**IMAGE, "steps": 25}, data=images / "train", run_dir=tmp_path / "run")
    values = losses(tmp_path / "run")
    assert values[25]["loss"] < 0.8 * values[1]["loss"]


def test_the_loss_falls_on_a_few_sounds(speech, tmp_path):
    train({}, {**AUDIO, "steps": 25}, data=speech / "train", run_dir=tmp_path / "run")
    values = losses(tmp_path / "run")
    assert values[25]["loss"] < 0.8 * values[1]["loss"]


def test_the_codebook_moves(speech, tmp_path):
    recipe = load_recipe({}, AUDIO)
    untrained = create_tokenizer(recipe)
    result = train(recipe, data=speech, run_dir=tmp_path / "run")
    weights = load_file(result.weights)
    assert bool(weights["quantizer.initialized"])
    assert not torch.equal(weights["quantizer.codebook"].float(), untrained.quantizer.codebook)


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(images, tmp_path):
    values = {**IMAGE, "optimizer.learning_rate": 1e20, "optimizer.clip_norm": 1e20, "checkpoint_every": 1}
    with pytest.raises(ZooError, match="training diverged at or before step"):
        train({}, {**values, "steps": 20}, data=images / "train", run_dir=tmp_path / "run")
    assert RunFolder(tmp_path / "run").steps()


def test_bfloat16_trains(images, tmp_path):
    result = train({}, {**IMAGE, "precision": "bf16-mixed"}, data=images, run_dir=tmp_path / "run")
    assert result.step == IMAGE["steps"]


def test_the_learning_rate_warms_up_and_decays_to_its_end():
    changes = {"steps": 100, "optimizer.warmup_steps": 10, "optimizer.final_learning_rate": 1e-4}
    recipe = load_recipe({}, {**IMAGE, **changes})
    rates = [learning_rate(step, recipe.optimizer, recipe.steps) for step in range(101)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(2e-3)
    assert rates[55] == pytest.approx((2e-3 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)
