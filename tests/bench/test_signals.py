"""What candidates are given, and the lossless files of what they give back."""

from dataclasses import replace

import pytest
import torch

import zoo
from zoo.bench.signals import Preprocessing
from zoo.errors import InputError
from zoo.modalities import Signal
from zoo.spec import TokenizerSpec


@pytest.mark.parametrize("modality", ["image", "audio", "video", "structure"])
def test_what_is_kept_is_lossless(modality, tmp_path):
    preprocessing = Preprocessing(modality=modality, sample_rate=24000, channels=1)
    draw = torch.Generator().manual_seed(0)
    shape = {"image": (3, 9, 7), "audio": (1, 999), "video": (3, 5, 18, 10), "structure": (8, 5, 3)}[modality]
    values = torch.rand(shape, generator=draw)
    scale = {"image": 255, "video": 255, "audio": 32768}.get(modality, 1)
    values = (values * scale).round().clamp(max=scale - 1) / scale if scale > 1 else values * 50
    if modality == "structure":
        values[2, 3], values[5] = torch.nan, torch.nan
    signal = Signal(values, 25.0)
    path = tmp_path / f"kept{preprocessing.kind.lossless_suffix}"
    preprocessing.write(path, signal)
    torch.testing.assert_close(preprocessing.read(path, signal), values, rtol=0, atol=0, equal_nan=True)


def specs(*changes: dict) -> list[TokenizerSpec]:
    """Specs of `wetok-nano` with the changes given."""
    return [replace(zoo.info("wetok-nano").spec, **change) for change in changes]


def test_the_only_size_that_a_variant_takes_is_taken():
    fixed, free = specs({"variable_size": False, "resolution": (128, 128)}, {})
    assert Preprocessing.of([free, fixed], {}).resolution == 128
    assert Preprocessing.of([free], {}).resolution is None


def test_audio_has_the_highest_rate_and_the_fewest_channels():
    first, second = (
        replace(zoo.info("wavtokenizer-nano").spec, sample_rate=rate, channels=channels)
        for rate, channels in ((16000, 1), (48000, 2))
    )
    preprocessing = Preprocessing.of([first, second], {"seconds": 2.0})
    assert (preprocessing.sample_rate, preprocessing.channels, preprocessing.seconds) == (48000, 1, 2.0)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ([{}], {"seconds": 1.0}, "seconds does not apply to images, got 1.0"),
        ([{}], {"resolution": 0}, "expected a resolution of at least 1 pixel, got 0"),
        ([{"variable_size": False, "resolution": (64, 64)}], {"resolution": 32}, "takes 64x64, got resolution 32"),
        (
            [{"variable_size": False, "resolution": (64, 64)}, {"variable_size": False, "resolution": (32, 32)}],
            {},
            "take different sizes .*64x64.*32x32",
        ),
    ],
)
def test_options_that_do_not_apply_are_errors(changes, options, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.of(specs(*changes), options)


def test_resolution_does_not_apply_to_audio_nor_zero_seconds():
    spec = zoo.info("wavtokenizer-nano").spec
    with pytest.raises(InputError, match="resolution does not apply to recordings, got 64"):
        Preprocessing.of([spec], {"resolution": 64})
    with pytest.raises(InputError, match="expected more than 0 seconds, got 0"):
        Preprocessing.of([spec], {"seconds": 0})
