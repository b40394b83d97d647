"""Figures of the excerpts, and what is said of a codebook that collapses."""

import pytest
import torch
from PIL import Image

import zoo
from tests.support.recipes import IMAGE
from zoo.metrics import METRICS, Metric
from zoo.metrics.codes import CodeStatistics
from zoo.trainers import train
from zoo.trainers.validation import codebook_health, collapse_warning

SPEC = zoo.info("wavtokenizer-small-320-24k-4096").spec


def summary(codes):
    statistics = CodeStatistics(SPEC.codebook_sizes, longest=1)
    statistics.update(codes)
    return statistics.compute()


def test_codebook_health_counts_entries_in_use():
    health = codebook_health(summary(torch.tensor([[[0, 0, 1, 1]], [[2, 2, 3, 3]]])), SPEC)
    assert health["usage"] == 4 / 4096
    assert health["perplexity"] == pytest.approx(4)
    assert health["entropy"] == pytest.approx(2)
    assert health["dead_codes"] == 4092


def test_a_codebook_has_collapsed_when_few_of_the_entries_in_reach_are_in_use():
    assert collapse_warning(summary(torch.arange(100)[None, None]), SPEC, ["commitment_loss"]) is None
    warning = collapse_warning(summary(torch.zeros(1, 1, 100, dtype=torch.int64)), SPEC, ["commitment_loss"])
    assert "codebook 0 (0.0%) has collapsed" in warning
    assert "a lower optimizer.learning_rate" in warning
    assert "losses.commitment_loss" in warning
    assert "entropy_loss" not in warning


def test_a_run_whose_codebook_collapses_warns_with_what_to_try(images, tmp_path, capfd):
    for path in (images / "val").iterdir():
        Image.new("RGB", (16, 16)).save(path)
    values = {**IMAGE, "spec.codebook_sizes": [65536], "config.dim": 16, "data.crop": 128, "steps": 1}
    train({}, values, data=images, run_dir=tmp_path / "run")
    assert "has collapsed" in (error := capfd.readouterr().err)
    assert "a greater losses.entropy_loss" in error


def test_a_recipe_names_the_metrics_of_its_validation(images, tmp_path):
    result = train({}, {**IMAGE, "validation.metrics": ["psnr"]}, data=images, run_dir=tmp_path / "run")
    assert sorted(result.metrics) == ["dead_codes", "entropy", "perplexity", "psnr", "usage"]


def test_a_metric_that_fails_is_left_out_with_a_warning_and_training_goes_on(images, tmp_path, monkeypatch):
    def fails(reconstruction, original, spec):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(
        METRICS["image"], "broken", Metric(name="broken", label="", higher_is_better=True, per_item=fails)
    )
    values = {**IMAGE, "validation.metrics": ["broken", "psnr"], "validation.best": "broken"}
    with pytest.warns(UserWarning, match="broken is left out, since it cannot be computed: .*no such kernel"):
        result = train({}, values, data=images, run_dir=tmp_path / "run")
    assert result.step == IMAGE["steps"] and "psnr" in result.metrics and "broken" not in result.metrics


def test_a_metric_whose_weights_are_missing_is_named_before_the_run(images, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert METRICS["image"]["lpips"].missing()
    with pytest.raises(zoo.errors.InputError, match=r"validation.metrics: lpips needs the weights of VGG16"):
        train({}, {**IMAGE, "validation.metrics": ["lpips"]}, data=images, run_dir=tmp_path / "run")
