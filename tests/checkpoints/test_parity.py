"""Parity with the authors' outputs at full size, from synthetic checkpoints in the published layout."""

import pytest

import zoo
from tests.support.paths import GOLDENS
from zoo.parity import parity


def check(name):
    report = parity(name, GOLDENS / name / "manifest.json", GOLDENS / name / "golden.npz")
    assert {"latent", "reconstruction"} <= set(report.differences)
    assert report.passed, report


def test_wavtokenizer_with_75_tokens_a_second_is_at_parity():
    check("wavtokenizer-small-320-24k-4096")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "bigcodec",
        "cosmos-di-16x16",
        "cosmos-di-8x8",
        "cosmos-dv-4x8x8",
        "dm-codec",
        "dplm2-struct-tokenizer",
        "emu3-vision",
        "emu3-vision-video",
        "emu3.5-ibq",
        "fqgan-dual-16",
        "fqgan-triple-16",
        "infinity-vae-d32",
        "ibq-16384",
        "ldm-vq-f4",
        "ldm-vq-f8",
        "llamagen-vq-16",
        "mimi",
        "one-d-piece-b-256",
        "one-d-piece-s-256",
        "open-magvit2-256",
        "qwen3-tts-12hz",
        "robusttok",
        "snac-24khz",
        "snac-44khz",
        "speechtokenizer-hubert-avg",
        "titok-s-128",
        "tokenbridge-kl16",
        "tokenflow-b",
        "var-vq-16-4096",
        "vidtok-fsq-causal-488-32768",
        "vqgan-gumbel-f8-8192",
        "vqgan-imagenet-f16-16384",
        "wavtokenizer-small-600-24k-4096",
        "wetok-general-768",
        "wetok-imagenet-f16",
        "wetok-imagenet-f8",
        "xy-tokenizer",
    ],
)
def test_published_variant_is_at_parity(name):
    check(name)


@pytest.mark.parametrize(
    ("name", "golden", "part"),
    [
        ("vqtoken", "vqtoken", "quantizer"),
        pytest.param("levo-codec", "levo-codec", "encoder", marks=pytest.mark.slow),
        pytest.param("levo-codec", "levo-codec-flow", "flow", marks=pytest.mark.slow),
        pytest.param("levo-codec", "levo-codec-flow-reduced", "flow", marks=pytest.mark.slow),
        pytest.param("levo-codec", "levo-codec-vae", "vae", marks=pytest.mark.slow),
        pytest.param("levo-codec-mixed", "levo-codec-mixed", "encoder", marks=pytest.mark.slow),
        pytest.param("seed-2", "seed-2", "network", marks=pytest.mark.slow),
        pytest.param("seed-2", "seed-2-reduced", "network", marks=pytest.mark.slow),
    ],
)
def test_each_part_of_a_tokenizer_is_at_parity(name, golden, part):
    report = parity(name, GOLDENS / golden / "manifest.json", GOLDENS / golden / "golden.npz")
    assert report.part == part
    assert {"latent", "reconstruction"} & set(report.differences)
    assert report.passed, report


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "glm4-voice-tokenizer",
        "s3-tokenizer-v1-25hz",
        "s3-tokenizer-v1-50hz",
        "s3-tokenizer-v2-25hz",
        "s3-tokenizer-v3-25hz",
    ],
)
def test_a_published_variant_that_only_encodes_is_at_parity(name):
    report = parity(name, GOLDENS / name / "manifest.json", GOLDENS / name / "golden.npz")
    assert {"latent", "quantized"} == set(report.differences)
    assert report.passed, report


def test_files_that_are_no_manifest_or_golden_are_named(tmp_path):
    name = "wavtokenizer-small-320-24k-4096"
    broken = tmp_path / "broken"
    broken.write_text("{")
    with pytest.raises(zoo.InputError, match="broken: not a manifest"):
        parity(name, broken, GOLDENS / name / "golden.npz")
    with pytest.raises(zoo.InputError, match="broken: not a golden"):
        parity(name, GOLDENS / name / "manifest.json", broken)


def test_a_variant_without_a_published_file_has_no_parity():
    with pytest.raises(zoo.InputError, match="wetok-nano was trained for zoo"):
        parity(
            "wetok-nano", GOLDENS / "wetok-imagenet-f8" / "manifest.json", GOLDENS / "wetok-imagenet-f8" / "golden.npz"
        )
