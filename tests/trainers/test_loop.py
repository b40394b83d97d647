"""Training through its front door, on tiny networks and synthetic data."""

import io
import os
import re
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.support.recipes import AUDIO, IMAGE, VIDEO, losses
from zoo.checkpoints import read_checkpoint
from zoo.errors import ZooError
from zoo.media import center_crop, read_image
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.data.batches import Crops
from zoo.trainers.optimizers import learning_rate, make_optimizer
from zoo.trainers.recipe import AdamW
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer


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
    with pytest.raises(ZooError, match=r"training diverged at step \d+: [a-z0-9_, ]+ (is|are) not finite"):
        train({}, {**values, "steps": 20}, data=images / "train", run_dir=tmp_path / "run")
    assert RunFolder(tmp_path / "run").steps()


def test_bfloat16_trains_about_as_float32_does(images, tmp_path):
    values = {**IMAGE, "losses": {"l1": 1.0}, "steps": 3}
    for precision in ("bf16-mixed", "32-true"):
        train({}, {**values, "precision": precision}, data=images / "train", run_dir=tmp_path / precision)
    half, whole = losses(tmp_path / "bf16-mixed")[1]["loss"], losses(tmp_path / "32-true")[1]["loss"]
    assert half != whole
    assert half == pytest.approx(whole, rel=0.02)


def test_the_exported_weights_are_the_average_that_the_recipe_asks_for(images, tmp_path):
    values = {**IMAGE, "optimizer.ema_decay": 0.5, "checkpoint_every": 1, "checkpoint_keep": 9}
    run = RunFolder(train({}, values, data=images / "train", run_dir=tmp_path / "run").run_dir)
    states = [read_checkpoint(path) for path in run.steps()]
    key = "encoder.stem.weight"
    average = create_tokenizer(load_recipe({}, values)).state_dict()[key]
    for number, state in enumerate(states, 1):
        # At the beginning it follows faster.
        average = average.lerp(state["tokenizer"][key], 1 - min(0.5, (1 + number) / (10 + number)))
        torch.testing.assert_close(state["averaged"][key], average)
    assert not torch.equal(states[-1]["averaged"][key], states[-1]["tokenizer"][key])
    torch.testing.assert_close(load_file(run.weights)[key].float(), average, atol=1e-3, rtol=1e-3)


def test_a_step_moves_by_the_clipped_gradient_and_vectors_do_not_decay():
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = make_optimizer(network, AdamW(learning_rate=0.1, weight_decay=0.5))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, before[name] * (0.95 if name == "0.weight" else 1))


@pytest.mark.parametrize("clip_norm", [0.01, 0.1])
def test_gradients_are_clipped_to_the_norm(clip_norm, images, tmp_path):
    values = {**IMAGE, "optimizer.clip_norm": clip_norm, "optimizer.betas": [0.0, 0.0], "steps": 1}
    run = RunFolder(train({}, values, data=images / "train", run_dir=tmp_path / "run").run_dir)
    (state,) = (read_checkpoint(path) for path in run.steps())
    moments = state["optimizer"]["state"].values()
    norm = torch.stack([moment["exp_avg"].norm() for moment in moments]).norm()
    assert float(norm) == pytest.approx(clip_norm, rel=1e-3)


def test_tensorboard_has_losses_metrics_and_samples(images, speech, clips, tmp_path):
    for values, data in ((IMAGE, images), (AUDIO, speech), (VIDEO, clips)):
        run = train({}, {**values, "steps": 3, "validation.examples": 2}, data=data, run_dir=tmp_path / data.name)
        events = EventAccumulator(str(run.run_dir / "tensorboard")).Reload()
        tags = events.Tags()
        assert {"training/loss", "training/learning_rate", "validation/usage", "steps_per_second"} <= {*tags["scalars"]}
        assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]
        logged = losses(run.run_dir)[3]["loss"]
        assert events.Scalars("training/loss")[-1].value == pytest.approx(logged, rel=1e-5)
        if data is speech:
            assert sorted(tags["audio"]) == ["0/original", "0/reconstruction", "1/original", "1/reconstruction"]
            assert events.Audio("0/original")[0].sample_rate == 24000
            continue
        assert tags["images"] == ["samples"]
        (shown,) = events.Images("samples")
        samples = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
        # Two pixels around each: two rows of a pair, or two pairs of rows of a clip's five frames.
        assert samples.shape == ((2 * 18 + 2, 2 * 18 + 2, 3) if data is images else (4 * 34 + 2, 5 * 34 + 2, 3))
        if data is images:
            original = center_crop(read_image(images / "val" / "0.png"), 16)
            assert np.array_equal(samples[2:18, 2:18], original.movedim(0, -1))


def test_a_run_tells_of_its_losses_speed_and_remaining_time(images, tmp_path, capsys):
    train({}, {**IMAGE, "steps": 2}, data=images, run_dir=tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"step 1/2  loss \S+  l1 \S+ .* steps/s  \d+:\d\d:\d\d left", lines[0])
    assert any(re.match(r"step 2/2  validation  psnr \S+  ssim \S+  usage ", line) for line in lines)


def test_the_learning_rate_warms_up_and_decays_to_its_end():
    changes = {"steps": 100, "optimizer.warmup_steps": 10, "optimizer.final_learning_rate": 1e-4}
    recipe = load_recipe({}, {**IMAGE, **changes})
    rates = [learning_rate(step, recipe.optimizer, recipe.steps) for step in range(101)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(2e-3)
    assert rates[55] == pytest.approx((2e-3 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)


def test_a_reader_that_is_killed_is_named_with_what_to_do(images, tmp_path, monkeypatch):
    monkeypatch.setattr(Crops, "__getitem__", lambda self, index: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ZooError, match=r"step 1: a process that reads data has died .*data\.workers=0"):
        train({}, {**IMAGE, "data.workers": 1}, data=images / "train", run_dir=tmp_path / "run")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_step_that_needs_too_much_memory_says_what_needs_less(error, images, tmp_path, monkeypatch):
    def short_of_memory(self, batches):
        raise error

    monkeypatch.setattr(Trainer, "advance", short_of_memory)
    with pytest.raises(ZooError, match=r"step 1: out of memory .*smaller batch_size"):
        train({}, IMAGE, data=images / "train", run_dir=tmp_path / "run")
