"""The benchmarks of training and of quantizers, at a tiny size: what they promise to hold equal, and what they keep."""

import json

import pytest
import torch
from lightning_fabric import Fabric

import zoo
from benchmarks import quantizer_ablation as ablation
from benchmarks import training
from tests.support.media import write_pictures
from zoo.trainers import create_tokenizer
from zoo.trainers.data.signals import Signals
from zoo.trainers.losses.terms import WeightedLosses
from zoo.trainers.trainer import Trainer


@pytest.fixture
def photographs(tmp_path):
    """Folder with four smooth pictures of 256 by 256 to train on, and two to validate with."""
    return write_pictures(tmp_path / "photographs", {"train": 4, "val": 2}, coarse=(8, 8), size=(256, 256))


def test_every_family_starts_from_the_same_encoder_and_decoder():
    first, *others = (ablation.make_tokenizer(family, seed=3) for family in ablation.FAMILIES)
    for other in others:
        for part in ("encoder", "decoder"):
            for ours, theirs in zip(getattr(first, part).parameters(), getattr(other, part).parameters(), strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", [name for name in ablation.FAMILIES if name != "dimensionwise"])
def test_every_family_spends_twelve_bits(family):
    assert ablation.make_tokenizer(family, seed=0).spec.bits_per_position == 12


def test_a_killed_ablation_goes_on_with_the_runs_that_it_lacks(photographs, tmp_path, capsys):
    file = tmp_path / "runs.json"
    common = ["--seeds", "0", "1", "--steps", "2", "--data", str(photographs), "--json", str(file)]
    ablation.main(["--families", "fsq", *common])
    first = json.loads(file.read_text())
    assert [run["settings"]["seed"] for run in first] == [0, 1]
    capsys.readouterr()
    ablation.main(["--families", "fsq", "dimensionwise", *common])
    assert capsys.readouterr().err.count("fsq") == 0
    runs = json.loads(file.read_text())
    assert runs[:2] == first and len(runs) == 4
    for run in runs:
        assert run["figures"]["bits_paid"] == 12
        assert 0 < run["figures"]["bits"] <= 12 and 0 < run["figures"]["usage"] <= 1
    ablation.main(["--families", "fsq", "dimensionwise", *common, "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and {line.split(" | ")[0] for line in lines[2:]} == {"| fsq", "| dimensionwise"}


@pytest.mark.parametrize("case", [case for case in training.CASES if case.recipe == "wetok-nano"], ids=str)
def test_the_plain_loop_does_the_work_of_ours(case, photographs):
    recipe = case.load(block=1)
    signals = Signals(photographs / "train", zoo.info(recipe.tokenizer).spec, recipe.data)
    plain = training.Plain(recipe, signals)
    trainer = Trainer(Fabric(accelerator="cpu", devices=1), recipe, create_tokenizer(recipe))
    batches = [torch.stack([plain.data[index] for index in (0, 1, 2)]) for _ in range(3)]
    plain.batches = iter(batches)
    for batch in batches:
        plain.step()
        trainer.advance(iter([batch]))
    start = create_tokenizer(recipe)
    for ours, theirs, before in zip(
        trainer.tokenizer.parameters(), plain.tokenizer.parameters(), start.parameters(), strict=True
    ):
        moved = (ours - before).norm()
        assert (ours - theirs).norm() <= 0.05 * moved + 1e-6


def test_the_plain_loss_of_sound_is_the_recipes():
    recipe = training.Case("wavtokenizer-nano").load(block=1)
    tokenizer = create_tokenizer(recipe)
    original = 0.1 * torch.randn(2, 1, 24000, generator=torch.Generator().manual_seed(0))
    output = tokenizer(original)
    expected = WeightedLosses(tokenizer, recipe.losses)(output, original)["loss"]
    torch.testing.assert_close(training.sound_loss(output, original), expected)


@pytest.mark.slow
def test_training_is_measured_against_the_plain_loop(photographs, tmp_path):
    file = tmp_path / "training.json"
    tiny = ["--only", "wetok-nano", "--rounds", "1", "--block", "1", "--images", str(photographs)]
    training.main([*tiny, "--json", str(file)])
    records = json.loads(file.read_text())
    assert [record["adversarial"] for record in records] == [False, True]
    for record in records:
        assert record["ratio"] > 0 and 0 <= record["waiting"] < 1
        assert record["ours_bytes"] > 0 and record["plain_bytes"] > 0
