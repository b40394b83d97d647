"""Spectrograms show where a sound is in time and frequency, and how loud it is."""

import numpy as np
import torch

from zoo.pictures.spectrograms import levels, spectrogram

RATE = 8000


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    return (2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE).sin()[None] * 0.5


def test_a_tone_is_loudest_at_its_frequency():
    loudest = levels(tone(1000), 100).mean(dim=1).argmax()
    assert int(loudest) == round(1000 / (RATE / 1024))


def test_half_the_amplitude_is_six_decibels_less():
    difference = levels(tone(1000), 100).amax() - levels(tone(1000) / 2, 100).amax()
    assert abs(float(difference) - 6.02) < 0.01


def brightness(image) -> np.ndarray:
    """Sum of the three colours, `[rows, columns]`."""
    return np.asarray(image.convert("RGB")).sum(axis=2)


def test_high_frequencies_are_at_the_top():
    rows = brightness(spectrogram(tone(3000), tone(3000), (100, 80))).mean(axis=1)
    assert int(rows.argmax()) == round((1 - 3000 / 4000) * 80)


def test_a_sound_is_drawn_on_the_scale_of_the_reference():
    reference, size = tone(1000), (100, 80)
    loud, quiet = (brightness(spectrogram(reference * gain, reference, size)).max() for gain in (1, 0.01))
    assert quiet < loud
    below_range, silence = (spectrogram(reference * gain, reference, size) for gain in (1e-5, 0))
    assert below_range.size == size
    assert (brightness(below_range) == brightness(silence)).all()


def test_silence_and_short_sounds_are_drawn():
    assert spectrogram(torch.zeros(1, 10), torch.zeros(1, 10), (50, 20)).size == (50, 20)
