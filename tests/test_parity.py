"""Parity with the authors' outputs at full size, from synthetic checkpoints in the published layout."""

from pathlib import Path

import pytest

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
