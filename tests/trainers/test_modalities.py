"""Whole runs of video and structures."""

import pytest

import zoo
from tests.support.media import helix
from tests.support.recipes import STRUCTURE, VIDEO, losses
from zoo.errors import InputError
from zoo.trainers import train


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
