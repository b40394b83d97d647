"""The blocks of Vocos's decoder, which predicts a spectrum for each frame; the inverse STFT makes audio of them.

Paper: Vocos: Closing the gap between time-domain and Fourier-based neural vocoders (ICLR 2024, arXiv 2306.00814).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.layers.onednn import Linear


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution over seven frames and an MLP of each frame; takes and returns `[B, dim, frames]`.

    Args:
        norm: norm of `[B, frames, dim]`; what `forward` is given beside `x`, the norm is given too.
        num_layers: number of such blocks one after the other; the first scale of what a block adds is its inverse.
    """

    def __init__(self, dim: int, hidden_dim: int, norm: nn.Module, num_layers: int):
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = norm
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1 / num_layers))

    def forward(self, x: Tensor, *condition: int) -> Tensor:
        h = self.norm(self.depthwise(x).mT, *condition)
        h = self.contract(F.gelu(self.expand(h)))
        return torch.addcmul(x, self.gamma[:, None], h.mT)


class SpectrumHead(Linear):
    """Channels `[B, frames, dim]` to the complex spectrum of each frame, `[B, frames, n_fft / 2 + 1]`.

    The outputs are log magnitudes, which are limited to 100, and phases.
    """

    def __init__(self, dim: int, n_fft: int):
        super().__init__(dim, n_fft + 2)

    def forward(self, x: Tensor) -> Tensor:
        log_magnitude, phase = super().forward(x).float().chunk(2, dim=-1)
        return torch.polar(log_magnitude.exp().clamp(max=100.0), phase)


def inverse_stft(parts: Iterable[tuple[int, int, Tensor]], frames: int, n_fft: int, hop_length: int) -> Tensor:
    """Return the audio float32 `[B, frames * hop_length]` of its spectra, with a Hann window and "same" padding.

    Args:
        parts: first frame, frame after the last, and complex `[B, their number, n_fft / 2 + 1]`; parts that are made
            one after the other need not exist at once.
        frames: number of frames of all parts.
    """
    audio = envelope = None
    for start, stop, spectrum in parts:
        window = torch.hann_window(n_fft, device=spectrum.device, dtype=torch.float32)
        if audio is None or envelope is None:
            audio = window.new_zeros(spectrum.shape[0], (frames - 1) * hop_length + n_fft)
            envelope = torch.zeros_like(audio[:1])
        span = slice(start * hop_length, (stop - 1) * hop_length + n_fft)
        audio[:, span] += overlap_add(torch.fft.irfft(spectrum, n_fft) * window, hop_length)
        envelope[:, span] += overlap_add((window**2).expand(1, stop - start, -1), hop_length)
    assert audio is not None and envelope is not None, "there is a frame"
    # The envelope is 0 at the very ends, which are cut.
    cut = (n_fft - hop_length) // 2
    return audio[:, cut : audio.shape[-1] - cut] / envelope[:, cut : envelope.shape[-1] - cut]


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Return the sum of frames `[B, T, n]` that start `hop_length` apart: `[B, (T - 1) * hop_length + n]`."""
    _, count, size = frames.shape
    length = (count - 1) * hop_length + size
    signal = F.fold(frames.mT, (1, length), kernel_size=(1, size), stride=(1, hop_length))
    return rearrange(signal, "b 1 1 n -> b n")
