"""Video and structures: crops, batches, whole runs."""

import numpy as np
import pytest
import torch

import zoo
from tests.support.media import helix
from tests.support.recipes import STRUCTURE, VIDEO, losses
from zoo.errors import InputError
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.data.batches import Crops, bucketed, training_batches
from zoo.trainers.data.crops import clip, crop_video
from zoo.trainers.data.options import VideoData
from zoo.trainers.data.signals import Signals


@pytest.mark.parametrize("values, folder, steps", [(VIDEO, "clips", 80), (STRUCTURE, "chains", 12)])
def test_the_loss_falls(values, folder, steps, request, tmp_path):
    data = request.getfixturevalue(folder)
    train({}, {**values, "steps": steps}, data=data / "train", run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    assert logged[steps]["loss"] < 0.9 * logged[1]["loss"]


@pytest.mark.parametrize(
    "values, folder, names", [(VIDEO, "clips", {"psnr", "ssim"}), (STRUCTURE, "chains", {"ca_rmsd", "tm_score"})]
)
def test_a_run_is_validated_and_its_weights_load(values, folder, names, request, tmp_path):
    data = request.getfixturevalue(folder)
    result = train({}, values, data=data, run_dir=tmp_path / "run")
    assert names <= result.metrics.keys()
    tokenizer = zoo.load(result.weights)
    signal = tokenizer.preprocess(next((data / "val").iterdir()))
    assert tokenizer.reconstruct(signal).shape == signal.shape


def test_a_video_is_trained_against_a_discriminator_of_frames(clips, tmp_path):
    discriminator = {"weight": 0.1, "arguments": {"width": 8, "num_layers": 2}}
    values = {**VIDEO, "losses": {"l1": 1.0, "multi_scale_gradient": 1.0}, "steps": 2}
    train({}, {**values, "adversarial.discriminators.patchgan": discriminator}, data=clips, run_dir=tmp_path / "run")
    assert losses(tmp_path / "run")[2]["patchgan_discriminator_loss"] > 0


def test_structures_have_no_discriminators(chains, tmp_path):
    values = {**STRUCTURE, "adversarial.discriminators.patchgan.weight": 1.0}
    with pytest.raises(InputError, match="there are no discriminators for dplm2-struct-tokenizer"):
        train({}, values, data=chains, run_dir=tmp_path / "run")


def test_a_clip_takes_every_so_manyth_frame():
    video = torch.arange(12, dtype=torch.uint8).view(1, 12, 1, 1).expand(3, 12, 4, 4)
    options = VideoData(frames=4, frame_stride=3, crop=4, flip=False)
    starts = {tuple(crop_video(video, options, np.random.default_rng(seed))[0, :, 0, 0].tolist()) for seed in range(40)}
    assert starts == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}


def test_the_last_frame_of_a_short_video_is_repeated():
    video = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(3, 3, 4, 4)
    assert clip(video, VideoData(frames=5), start=0)[0, :, 0, 0].tolist() == [0, 1, 2, 2, 2]


def test_of_a_long_video_only_the_first_frames_are_read(clips):
    signals = Signals(clips / "train", zoo.info("cosmos-dv").spec, VideoData(max_frames=7))
    assert [signals[number].shape[1] for number in range(3)] == [7, 7, 7]


def test_chains_are_cut_and_padded_with_absent_residues(chains):
    recipe = load_recipe({}, {**STRUCTURE, "data.bucket": 1, "batch_size": 7, "steps": 1})
    signals = Signals(chains / "train", create_tokenizer(recipe).spec, recipe.data)
    (batch,) = training_batches(Crops(signals, recipe.data, seed=0), recipe, step=0)
    assert batch.shape == (7, 24, 5, 3)
    lengths = (~batch.isnan().flatten(2).any(dim=2)).sum(dim=1)
    assert sorted(lengths.tolist()) == [12, 16, 20, 24, 24, 24, 24]


def test_chains_of_a_batch_are_about_as_long(chains):
    recipe = load_recipe({}, {**STRUCTURE, "data.bucket": 7, "data.max_residues": 99, "steps": 3})
    signals = Signals(chains / "train", create_tokenizer(recipe).spec, recipe.data)
    batches = training_batches(Crops(signals, recipe.data, seed=0), recipe, step=0)
    assert [batch.shape[1] for batch in batches] == [16, 24, 32]


def test_bucketing_keeps_every_entry_and_turns_at_each_bucket():
    order = np.random.default_rng(0).permutation(10)
    sizes = np.arange(10) * 7
    found = bucketed(order, sizes, 4)
    assert sorted(found) == list(range(10))
    assert list(found[:4]) == sorted(order[:4])
    assert list(found[4:8]) == sorted(order[4:8], reverse=True)
    assert list(found[8:]) == sorted(order[8:])


def test_a_file_that_is_no_structure_is_skipped_and_named(chains, tmp_path, capfd):
    (chains / "train" / "broken.pdb").write_text("no atoms")
    train({}, {**STRUCTURE, "steps": 1}, data=chains, run_dir=tmp_path / "run")
    error = capfd.readouterr().err
    assert "broken.pdb" in error
    assert "1 of 8 files skipped" in error


def test_the_helix_of_these_tests_is_one():
    chain = helix(8)
    bonds = (chain[:, :3].flatten(0, 1).diff(dim=0)).norm(dim=-1)
    assert bonds.min() > 1.2
    assert bonds.max() < 1.7
