"""Parity with the authors' outputs at full size, from synthetic checkpoints in the published layout."""

from pathlib import Path

import pytest

import zoo
from zoo.parity import parity

GOLDENS = Path(__file__).parent / "parity"


def check(name):
    report = parity(name, GOLDENS / name / "manifest.json", GOLDENS / name / "golden.npz")
    assert {"latent", "quantized", "reconstruction"} <= set(report.differences)
    assert report.passed, report


def test_wavtokenizer_with_75_tokens_a_second_is_at_parity():
    check("wavtokenizer-small-320-24k-4096")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["wavtokenizer-small-600-24k-4096", "wetok-imagenet-f8", "wetok-imagenet-f16", "wetok-general-768"],
)
def test_published_variant_is_at_parity(name):
    check(name)


def test_files_that_are_no_manifest_or_golden_are_named(tmp_path):
    name = "wavtokenizer-small-320-24k-4096"
    broken = tmp_path / "broken"
    broken.write_text("{")
    with pytest.raises(zoo.InputError, match="broken: no manifest"):
        parity(name, broken, GOLDENS / name / "golden.npz")
    with pytest.raises(zoo.InputError, match="broken: no golden"):
        parity(name, GOLDENS / name / "manifest.json", broken)


def test_a_variant_without_a_published_file_has_no_parity():
    with pytest.raises(zoo.InputError, match="wetok-nano was trained here"):
        parity(
            "wetok-nano", GOLDENS / "wetok-imagenet-f8" / "manifest.json", GOLDENS / "wetok-imagenet-f8" / "golden.npz"
        )
