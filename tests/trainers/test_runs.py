"""The folder of a run: checkpoints, going on, exported weights."""

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

import zoo
from tests.support.recipes import AUDIO, IMAGE, losses
from zoo.checkpoints import read_metadata
from zoo.errors import InputError
from zoo.metrics import METRICS
from zoo.trainers import create_tokenizer, export, load_recipe, train
from zoo.trainers.data.batches import Crops, Excerpts, training_batches, validation_batches
from zoo.trainers.data.signals import Signals
from zoo.trainers.exporting import halved
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer
from zoo.trainers.validation import validate


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_a_resumed_run_repeats_an_uninterrupted_one_step_for_step(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    whole = train({}, values, data=data, run_dir=tmp_path / "whole")

    recipe = load_recipe({}, values)
    trainer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe))
    signals = Signals(data / "train", trainer.tokenizer.spec, trainer.recipe.data)
    batches = iter(training_batches(Crops(signals, recipe.data, recipe.seed), recipe, step=0))
    for _ in range(3):
        trainer.advance(batches)
        trainer.mean_losses()
    stopped = RunFolder(tmp_path / "stopped")
    stopped.start(recipe, 0)
    stopped.save(trainer.state_dict(), keep=1)
    resumed = train({}, values, data=data, run_dir=tmp_path / "stopped")

    assert [losses(resumed.run_dir)[step] for step in (4, 5, 6)] == [losses(whole.run_dir)[step] for step in (4, 5, 6)]
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[key]) for key, value in load_file(resumed.weights).items())


def test_a_run_stops_when_its_minutes_are_over_and_leaves_weights(images, tmp_path):
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run", minutes=0)
    assert result.step == 0
    assert result.weights.is_file()


def test_a_run_of_another_recipe_is_not_gone_on_with(images, tmp_path):
    train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"batch_size: 2, now 1"):
        train({}, {**IMAGE, "steps": 1, "batch_size": 1}, data=images / "train", run_dir=tmp_path / "run")


def test_starting_anew_replaces_the_run(images, tmp_path):
    train({}, IMAGE, data=images / "train", run_dir=tmp_path / "run")
    result = train({}, {**IMAGE, "steps": 2}, data=images / "train", run_dir=tmp_path / "run", resume=False)
    assert result.step == 2
    assert sorted(losses(tmp_path / "run")) == [1, 2]


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_exported_weights_load_as_a_tokenizer_that_gives_the_validated_metrics(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    result = train({}, values, data=data, run_dir=tmp_path / "run")
    path = export(result.run_dir, tmp_path / "weights.safetensors")
    tokenizer = zoo.load(path)
    recipe = load_recipe({}, values)
    excerpts = Excerpts(Signals(data / "val", tokenizer.spec, recipe.data), recipe.data)
    name = {"images": "psnr", "speech": "mel_distance"}[folder]
    metric = METRICS[tokenizer.spec.modality][name]
    metrics = validate(tokenizer, validation_batches(excerpts, recipe), [metric], examples=1).metrics
    assert metrics[name] == pytest.approx(result.metrics[name], rel=0.02)


def test_exported_weights_say_what_they_are(images, tmp_path):
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run")
    metadata = read_metadata(result.weights)
    assert metadata["tokenizer"] == "wetok-imagenet-f8"
    assert metadata["recipe"] == load_recipe({}, IMAGE).digest
    assert metadata["steps"] == "6"
    assert metadata["zoo"] == zoo.__version__
    assert {value.dtype for value in load_file(result.weights).values()} == {torch.float16}


@pytest.mark.parametrize("value", [[1e6, 2.0], [1e-7, 2e-7], [70000], [True]])
def test_an_exported_tensor_that_float16_would_not_hold_stays_as_it_is(value):
    assert torch.equal(halved(torch.tensor(value)), torch.tensor(value))


def test_the_last_checkpoints_are_kept_and_no_more(images, tmp_path):
    values = {**IMAGE, "checkpoint_every": 1, "checkpoint_keep": 3}
    result = train({}, values, data=images / "train", run_dir=tmp_path / "run")
    names = sorted(path.name for path in (result.run_dir / "checkpoints").iterdir())
    assert names == ["step-00000004.pt", "step-00000005.pt", "step-00000006.pt"]


def test_the_best_checkpoint_is_that_of_the_best_validation(images, tmp_path):
    # So high a rate that later weights are worse.
    values = {**IMAGE, "optimizer.learning_rate": 0.3, "optimizer.ema_decay": 0.0, "steps": 8}
    values |= {"validation.every": 2, "validation.best": "psnr"}
    result = train({}, values, data=images, run_dir=tmp_path / "run")
    history = RunFolder(result.run_dir).history()
    figures = {entry["step"]: entry["validation"]["psnr"] for entry in history if "validation" in entry}
    best = max(figures, key=figures.get)
    export(result.run_dir, tmp_path / "best.safetensors", best=True)
    assert sorted(figures) == [2, 4, 6, 8]
    assert read_metadata(tmp_path / "best.safetensors")["steps"] == str(best)


def test_a_run_without_a_named_metric_has_no_best(images, tmp_path):
    result = train({}, {**IMAGE, "steps": 1}, data=images, run_dir=tmp_path / "run")
    with pytest.raises(InputError, match="the run has saved no best checkpoint yet"):
        export(result.run_dir, best=True)


def test_the_best_takes_validation_data(images, tmp_path):
    with pytest.raises(InputError, match=r"validation.best needs validation data"):
        train({}, {**IMAGE, "validation.best": "psnr"}, data=images / "train", run_dir=tmp_path / "run")
