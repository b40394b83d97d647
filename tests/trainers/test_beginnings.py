"""What a run starts from, and what it leaves as it is: `weights` and `freeze` of a recipe."""

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from tests.support.recipes import AUDIO, IMAGE, losses
from tests.support.runs import without_its_last_checkpoint
from zoo.checkpoints import read_checkpoint
from zoo.errors import CheckpointError, InputError
from zoo.models.image.wetok import CHECKPOINT
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer

# Weights


def start_of(values, data, run_dir) -> dict[str, torch.Tensor]:
    """The weights of a run before its first step."""
    result = train({}, values, data=data, run_dir=run_dir, minutes=0)
    assert result.step == 0
    return load_file(result.weights)


def test_a_run_starts_from_the_weights_of_another(images, tmp_path):
    first = train({}, IMAGE, data=images, run_dir=tmp_path / "first")
    expected = load_file(first.weights)
    started = start_of({**IMAGE, "seed": 1, "weights": str(first.weights)}, images, tmp_path / "second")
    assert started.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in started.items())


def test_a_run_starts_from_the_weights_of_a_variant(tiny_wetok, images, tmp_path):
    expected = tiny_wetok.state_dict()
    values = {"tokenizer": "tiny-wetok", "data.crop": 16, "losses": {"l1": 1.0}, "steps": 2, "batch_size": 2}
    started = start_of({**values, "weights": "tiny-wetok"}, images, tmp_path / "run")
    for key, value in started.items():
        torch.testing.assert_close(value.float(), expected[key].float(), atol=1e-3, rtol=1e-3)


def test_a_run_starts_from_the_file_of_a_variants_authors(images, tmp_path):
    random = create_tokenizer(load_recipe({}, IMAGE)).state_dict()
    expected = {key: value + 0.25 for key, value in random.items()}
    published = {CHECKPOINT.published_key(key)[0]: value for key, value in expected.items()}
    for key in reversed(CHECKPOINT.layout):
        published = {key: published}
    torch.save(published, tmp_path / "theirs.ckpt")
    started = start_of({**IMAGE, "weights": str(tmp_path / "theirs.ckpt")}, images, tmp_path / "run")
    for key, value in started.items():
        torch.testing.assert_close(value.float(), expected[key].float(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"spec.codebook_sizes": [512], "config.dim": 9}, r"config is \{.*'dim': 8.*, not \{.*'dim': 9"),
        ({"weights": "missing.safetensors"}, r"missing.safetensors: no such file, and no variant has that name"),
        ({"weights": "foldseek-3di"}, r"the weights of foldseek-3di in a wetok-.*: .* missing \(.* unexpected \("),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_left(change, message, images, tmp_path):
    first = train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "first")
    with pytest.raises(CheckpointError, match=message):
        train({}, {**IMAGE, "weights": str(first.weights), **change}, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_with_a_tensor_of_another_shape_is_refused(speech, tmp_path):
    first = train({}, {**AUDIO, "steps": 1}, data=speech / "train", run_dir=tmp_path / "first")
    values = {**AUDIO, "spec.codebook_sizes": [32], "weights": str(first.weights)}
    with pytest.raises(CheckpointError, match=r"of another shape \(quantizer.codebook: \[16, 8\], expected \[32, 8\]"):
        train({}, values, data=speech / "train", run_dir=tmp_path / "run")


def test_a_resumed_run_does_not_read_the_weights_again(images, tmp_path):
    first = train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "first")
    values = {**IMAGE, "weights": str(first.weights), "checkpoint_every": 3}
    whole = train({}, values, data=images / "train", run_dir=tmp_path / "whole")
    first.weights.unlink()
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    train({}, values, data=images / "train", run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir)


def test_the_weights_belong_to_what_shapes_a_run():
    assert load_recipe({}, {**IMAGE, "weights": "a.safetensors"}).digest != load_recipe({}, IMAGE).digest
    assert load_recipe({}, {**IMAGE, "freeze": ["encoder"]}).digest != load_recipe({}, IMAGE).digest
    assert load_recipe({}, {**IMAGE, "freeze": [], "data.flip": True}).digest == load_recipe({}, IMAGE).digest
    assert load_recipe({}, {**IMAGE, "log_every": 7, "data.workers": 1}).digest == load_recipe({}, IMAGE).digest


# Frozen parts


def test_frozen_parts_stay_as_they_are_and_the_others_learn(images, tmp_path):
    values = {**IMAGE, "freeze": ["encoder", "decoder.mid"], "optimizer.ema_decay": 0.5}
    before = create_tokenizer(load_recipe({}, values)).state_dict()
    result = train({}, values, data=images / "train", run_dir=tmp_path / "run")
    checkpoint = read_checkpoint(RunFolder(result.run_dir).steps()[-1])
    for after in (checkpoint["tokenizer"], checkpoint["averaged"]):
        for key, value in before.items():
            frozen = key.startswith(("encoder.", "decoder.mid."))
            assert not frozen or torch.equal(after[key], value), key
        assert not torch.equal(after["decoder.head.weight"], before["decoder.head.weight"])


def test_a_frozen_codebook_neither_starts_nor_moves(speech, tmp_path):
    values = {**AUDIO, "losses": {"mel": 1.0}, "freeze": ["quantizer"]}
    before = create_tokenizer(load_recipe({}, values)).state_dict()
    result = train({}, values, data=speech / "train", run_dir=tmp_path / "run")
    after = read_checkpoint(RunFolder(result.run_dir).steps()[-1])["tokenizer"]
    assert not after["quantizer.initialized"]
    assert all(torch.equal(after[key], value) for key, value in before.items() if key.startswith("quantizer."))


def test_frozen_parts_are_in_eval_mode_and_the_others_are_not():
    recipe = load_recipe({}, {**IMAGE, "freeze": ["encoder"]})
    tokenizer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe).eval()).tokenizer
    assert not any(module.training for module in tokenizer.encoder.modules())
    assert all(module.training for part in (tokenizer.quantizer, tokenizer.decoder) for module in part.modules())


def test_a_run_with_frozen_parts_resumes_step_for_step(speech, tmp_path):
    values = {**AUDIO, "losses": {"mel": 1.0}, "freeze": ["quantizer", "encoder"], "checkpoint_every": 3}
    whole = train({}, values, data=speech / "train", run_dir=tmp_path / "whole")
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    train({}, values, data=speech / "train", run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir)
    weights = load_file(whole.weights)
    assert all(torch.equal(value, weights[key]) for key, value in load_file(resumed / "weights.safetensors").items())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"freeze": ["encodr"]}, r"freeze: no module 'encodr'; there are encoder, quantizer, decoder"),
        ({"freeze": ["encoder.levels.99"]}, r"freeze: no module 'encoder.levels.99'"),
        ({"freeze": [""]}, r"freeze: no module ''"),
        ({"freeze": "encoder"}, r"expected freeze as \[text, ...\], got 'encoder'"),
        ({"freeze": ["encoder", "decoder"]}, r"freeze: nothing is left to train without encoder, decoder"),
        ({"freeze": ["quantizer"]}, r"unknown loss 'commitment_loss'; .*of the quantizer: none, it is frozen"),
        (
            {
                "freeze": ["decoder"],
                "adversarial": {"discriminators": {"patchgan": {"weight": 1.0}}, "adaptive_weight": True},
            },
            r"adversarial.adaptive_weight uses the decoder's last layer, which is frozen",
        ),
    ],
)
def test_what_cannot_be_frozen_is_named(change, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, {**IMAGE, **change}, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_quantizer_is_frozen_as_a_whole(images, tmp_path):
    values = {"tokenizer": "fqgan-nano", "losses": {"l1": 1.0}, "steps": 1, "batch_size": 1}
    with pytest.raises(InputError, match=r"freeze: expected the quantizer as a whole, got quantizer.layers.0"):
        train({}, {**values, "freeze": ["quantizer.layers.0"]}, data=images, run_dir=tmp_path / "run")
