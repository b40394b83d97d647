"""Audio at another sample rate, in bounded memory whatever the two rates are."""

from __future__ import annotations

import math
import reprlib

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError

LEAST_RATE, MOST_RATE = 1_000, 4_000_000  # Hz that are resampled
ZERO_CROSSINGS = 6  # of the sinc on each side, within its Hann window
ROLLOFF = 0.99  # of the lower Nyquist frequency
LARGEST_KERNEL = 2**20  # weights that torchaudio may compute; 44100 to 48000 Hz needs 26 thousand
WEIGHTS_AT_ONCE = 2**20


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Return audio at another sample rate, by torchaudio's Resample: a Hann-windowed sinc (width 6, rolloff 0.99).

    torchaudio holds a weight for each pair of input and output samples in a period of the two rates: gigabytes where
    they share no factor. For such rates the same filter is evaluated block by block.

    Args:
        audio: floating point `[..., samples]`.
        from_rate, to_rate: sample rates in Hz, from 1,000 to 4,000,000.

    Returns:
        `[..., ceil(samples * to_rate / from_rate)]`; `audio` itself if the rates are the same.

    Raises:
        InputError: a rate that is not a positive integer or, if the rates differ, is out of range.
    """
    check_resampling(from_rate, to_rate)
    if from_rate == to_rate:
        return audio
    common = math.gcd(from_rate, to_rate)
    period_in, period_out = from_rate // common, to_rate // common
    if period_out * (period_in + 2 * _reach(from_rate, to_rate)) > LARGEST_KERNEL:
        return _resampled_in_blocks(audio, period_in, period_out)
    import torchaudio

    filters = torchaudio.transforms.Resample(from_rate, to_rate).to(audio)
    # As in its `forward`, which counts what to return in float32: wrong beyond 2**24, and a constant in a graph.
    padded = F.pad(audio.reshape(-1, 1, audio.shape[-1]), (filters.width, filters.width + period_in))
    samples = F.conv1d(padded, filters.kernel, stride=period_in).mT.flatten(1)
    length = (audio.shape[-1] * period_out + period_in - 1) // period_in
    return samples[:, :length].reshape(*audio.shape[:-1], length)


def check_rate(sample_rate: int) -> None:
    """Raise InputError unless the rate is a positive integer."""
    if not isinstance(sample_rate, int) or isinstance(sample_rate, bool) or sample_rate < 1:
        raise InputError(f"expected a sample rate as a positive integer in Hz, got {reprlib.repr(sample_rate)}")


def check_resampling(from_rate: int, to_rate: int) -> None:
    """Raise InputError unless audio can be resampled from one rate to the other."""
    for rate in (from_rate, to_rate):
        check_rate(rate)
        if from_rate != to_rate and not LEAST_RATE <= rate <= MOST_RATE:
            raise InputError(
                f"expected sample rates from {LEAST_RATE} to {MOST_RATE} Hz to resample between, "
                f"got {from_rate} and {to_rate}"
            )


def _cutoff(from_rate: int, to_rate: int) -> float:
    """Zero crossings of the filter per input sample."""
    return ROLLOFF * min(from_rate, to_rate) / from_rate


def _reach(from_rate: int, to_rate: int) -> int:
    """Input samples on each side of an output sample that the filter weighs."""
    return math.ceil(ZERO_CROSSINGS / _cutoff(from_rate, to_rate))


def _resampled_in_blocks(audio: Tensor, period_in: int, period_out: int) -> Tensor:
    """Output sample n lies at input sample `n * period_in / period_out`, of which fraction and whole are exact."""
    cutoff, reach = _cutoff(period_in, period_out), _reach(period_in, period_out)
    samples = audio.shape[-1]
    length = -(-samples * period_out // period_in)
    offsets = torch.arange(-reach, reach + 2)
    padded = F.pad(audio, (reach, reach + 1))
    block = min(length, max(1, WEIGHTS_AT_ONCE // (len(offsets) * max(1, audio[..., 0].numel()))))
    blocks = []
    for first in range(0, length, block):
        positions = torch.arange(first, min(first + block, length)) * period_in
        fractions = (positions % period_out).double() / period_out
        crossings = ((offsets - fractions[:, None]) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        hann = (crossings * (math.pi / 2 / ZERO_CROSSINGS)).cos().square()
        weights = (torch.sinc(crossings) * hann * cutoff).to(audio)
        taps = ((positions // period_out)[:, None] + offsets + reach).to(audio.device)
        blocks.append((padded[..., taps] * weights).sum(-1))
    return torch.cat(blocks, dim=-1)
