"""Discriminators of audio: of its samples by periods and at several rates, and of its spectra.

All raise InputError for audio that is not longer than the greatest period or half of the greatest window, and
`MultiScaleSTFT` for audio that is shorter than its greatest window.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from zoo.errors import InputError
from zoo.trainers.adversarial.discriminators.stack import ALL, HIDDEN, Judgements, Stack


class MultiPeriod(nn.Module):
    """Judges every p-th sample, for several p (HiFi-GAN, arXiv 2010.05646).

    For each period the samples are laid out as `[samples / p, p]`, with their end reflected to fill the last row. They
    go through weight normalised convolutions of 5 by 1, all but the last with a stride of 3, and LeakyReLU 0.1. Initial
    weights are PyTorch's. SpeechTokenizer, DM-Codec and, apart from its conditioning, WavTokenizer use this network,
    BigCodec a narrower one.

    Takes `[B, C, samples]`; logits `[B * C, 1, rows, p]`.

    Args:
        periods: values of p, each with a network of its own. widths: channels of the hidden layers.
        output_kernel: rows that the last convolution sees. features: see `Stack`.
        fill_whole_rows: whether a row is added even if the last row is full, as in DAC.
    """

    def __init__(
        self,
        *,
        periods: tuple[int, ...] = (2, 3, 5, 7, 11),
        widths: tuple[int, ...] = (32, 128, 512, 1024, 1024),
        output_kernel: int = 3,
        features: slice = ALL,
        fill_whole_rows: bool = False,
    ):
        super().__init__()
        self.periods, self.fill_whole_rows = periods, fill_whole_rows
        self.stacks = nn.ModuleList(self._stack(widths, output_kernel, features) for _ in periods)

    @staticmethod
    def _stack(widths: tuple[int, ...], output_kernel: int, features: slice) -> Stack:
        hidden = [
            nn.Conv2d(before, after, (5, 1), (3 if number < len(widths) else 1, 1), (2, 0))
            for number, (before, after) in enumerate(pairwise((1, *widths)), 1)
        ]
        output = nn.Conv2d(widths[-1], 1, (output_kernel, 1), padding=(1, 0))
        return Stack([weight_norm(convolution) for convolution in (*hidden, output)], 0.1, features)

    def forward(self, audio: Tensor) -> Judgements:
        audio = by_channel(audio, max(self.periods) + 1)
        return [stack(self._rows(audio, period)) for stack, period in zip(self.stacks, self.periods, strict=True)]

    def _rows(self, audio: Tensor, period: int) -> Tensor:
        missing = -audio.shape[-1] % period
        if self.fill_whole_rows and missing == 0:
            missing = period
        padded = functional.pad(audio, (0, missing), mode="reflect") if missing else audio
        return rearrange(padded, "b c (rows period) -> b c rows period", period=period)


class MultiScale(nn.Module):
    """Judges the samples at the full rate, a half and a quarter of it (HiFi-GAN, after MelGAN, arXiv 1910.06711).

    The samples go through grouped convolutions of 15, 41 and 5 taps and LeakyReLU 0.1. The convolutions have spectral
    norm at the full rate and weight norm at the others, where they see means of four samples in steps of two. Initial
    weights are PyTorch's. SpeechTokenizer and DM-Codec use this network.

    Takes `[B, C, samples]`; logits `[B * C, 1, frames]`, features all maps.

    Args:
        width: channels of the first layers, a multiple of 16; the last layers have eight times as many.
    """

    # Channels of a layer as a multiple of the width, taps, stride, groups.
    LAYERS = (
        (1, 15, 1, 1),
        (1, 41, 2, 4),
        (2, 41, 2, 16),
        (4, 41, 4, 16),
        (8, 41, 4, 16),
        (8, 41, 1, 16),
        (8, 5, 1, 1),
    )

    def __init__(self, *, width: int = 128):
        super().__init__()
        full_rate = self._stack(width, spectral_norm)
        self.stacks = nn.ModuleList([full_rate, *(self._stack(width, weight_norm) for _ in range(2))])
        self.pool = nn.AvgPool1d(4, 2, padding=2)

    def _stack(self, width: int, normalize: Callable[[nn.Conv1d], nn.Module]) -> Stack:
        channels = 1
        convolutions: list[nn.Conv1d] = []
        for multiple, taps, stride, groups in self.LAYERS:
            convolutions.append(nn.Conv1d(channels, multiple * width, taps, stride, taps // 2, groups=groups))
            channels = multiple * width
        convolutions.append(nn.Conv1d(channels, 1, 3, padding=1))
        return Stack([normalize(convolution) for convolution in convolutions], 0.1)

    def forward(self, audio: Tensor) -> Judgements:
        audio, judgements = by_channel(audio), []
        for stack in self.stacks:
            judgements.append(stack(audio))
            audio = self.pool(audio)
        return judgements


class MultiScaleSTFT(nn.Module):
    """Judges complex spectra of several resolutions and keeps their time steps (EnCodec, arXiv 2210.13438).

    The spectra have Hann windows in steps of a quarter window, without padding, and are divided by the root of the
    window's energy; their real and imaginary parts are two channels. They go through weight normalised convolutions of
    3 steps by 9 bins, three of which have strides of 2 bins and dilations of 1, 2 and 4 steps, and LeakyReLU 0.2.
    Initial weights are PyTorch's. SpeechTokenizer and DM-Codec use this network.

    Takes `[B, C, samples]`; logits `[B * C, 1, frames, bins]`, features all maps but the logits.

    Args:
        windows: window lengths in samples, each with a network of its own. width: channels of the hidden layers.
    """

    def __init__(self, *, windows: tuple[int, ...] = (1024, 2048, 512, 256, 128), width: int = 32):
        super().__init__()
        self.windows = windows
        self.stacks = nn.ModuleList(self._stack(width) for _ in windows)

    @staticmethod
    def _stack(width: int) -> Stack:
        convolutions = [
            nn.Conv2d(2, width, (3, 9), padding=(1, 4)),
            *(nn.Conv2d(width, width, (3, 9), (1, 2), (d, 4), (d, 1)) for d in (1, 2, 4)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, 1, 3, padding=1),
        ]
        return Stack([weight_norm(convolution) for convolution in convolutions], 0.2, HIDDEN)

    def forward(self, audio: Tensor) -> Judgements:
        audio, judgements = by_channel(audio, max(self.windows)), []
        for stack, window in zip(self.stacks, self.windows, strict=True):
            hann = torch.hann_window(window, device=audio.device)
            spectrum = stft(audio, window, hann, center=False) / hann.square().sum().sqrt()
            judgements.append(stack(torch.view_as_real(spectrum).permute(0, 3, 2, 1)))
        return judgements


class MultiResolutionSTFT(nn.Module):
    """Judges magnitude spectra of several resolutions (WavTokenizer, after Vocos and UnivNet, arXiv 2106.07889).

    The spectra have rectangular windows in steps of a quarter window and reflected ends. They go through weight
    normalised convolutions and LeakyReLU 0.1. Initial weights are PyTorch's. The authors' network adds a learned inner
    product with the decoder's condition, all settings of which mean the same; it is left out.

    Takes `[B, C, samples]`; logits `[B * C, 1, bins, frames]`, features all maps.

    Args:
        windows: window lengths in samples, each with a network of its own. width: channels of the hidden layers.
    """

    # Kernel, stride and padding, each for bins and frames.
    LAYERS = (
        ((7, 5), (2, 2), (3, 2)),
        ((5, 3), (2, 1), (2, 1)),
        ((5, 3), (2, 2), (2, 1)),
        ((3, 3), (2, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1)),
    )

    def __init__(self, *, windows: tuple[int, ...] = (1024, 2048, 512), width: int = 64):
        super().__init__()
        self.windows = windows
        self.stacks = nn.ModuleList(self._stack(width) for _ in windows)

    def _stack(self, width: int) -> Stack:
        hidden = [
            nn.Conv2d(width if number else 1, width, kernel, stride, padding)
            for number, (kernel, stride, padding) in enumerate(self.LAYERS)
        ]
        output = nn.Conv2d(width, 1, 3, padding=1)
        return Stack([weight_norm(convolution) for convolution in (*hidden, output)], 0.1)

    def forward(self, audio: Tensor) -> Judgements:
        audio = by_channel(audio, max(self.windows) // 2 + 1)
        return [
            stack(stft(audio, window).abs()[:, None]) for stack, window in zip(self.stacks, self.windows, strict=True)
        ]


class BigCodecSpectrogram(nn.Module):
    """Judges magnitude spectra of several resolutions, halved along both axes four times (BigCodec, arXiv 2409.05377).

    The spectra have Hann windows in steps of a quarter window and reflected ends; magnitudes are clamped to 3e-4 to 32.
    They go through weight normalised convolutions of 5 by 5 and, for the last two, 3 by 3, and LeakyReLU 0.2. Initial
    weights are PyTorch's, which is what remains of the authors' initialisation.

    Takes `[B, C, samples]`; logits `[B * C, 1, bins, frames]`, features all maps but the logits.

    Args:
        windows: window lengths in samples, each with a network of its own.
        width: channels of the first layer; each hidden layer doubles them.
    """

    def __init__(self, *, windows: tuple[int, ...] = (128, 256, 512, 1024, 2048), width: int = 32):
        super().__init__()
        self.windows = windows
        self.stacks = nn.ModuleList(self._stack(width) for _ in windows)

    @staticmethod
    def _stack(width: int) -> Stack:
        convolutions = [
            nn.Conv2d(1, width, 5, 2, 2),
            *(nn.Conv2d(width * 2**index, width * 2 ** (index + 1), 5, 2, 2) for index in range(3)),
            nn.Conv2d(width * 8, width * 16, 3, padding=1),
            nn.Conv2d(width * 16, 1, 3, padding=1),
        ]
        return Stack([weight_norm(convolution) for convolution in convolutions], 0.2, HIDDEN)

    def forward(self, audio: Tensor) -> Judgements:
        audio, judgements = by_channel(audio, max(self.windows) // 2 + 1), []
        for stack, window in zip(self.stacks, self.windows, strict=True):
            spectrum = stft(audio, window, torch.hann_window(window, device=audio.device))
            power = (spectrum.real.square() + spectrum.imag.square()).clamp(1e-7, 1e3)
            judgements.append(stack(power.sqrt()[:, None]))
        return judgements


class DAC(nn.Module):
    """Judges samples by periods, and complex spectra band by band (DAC, arXiv 2306.06546, as in WavTokenizer).

    The mean of each item is subtracted and its peak scaled to 0.8. Eight networks follow: those of `MultiPeriod`, and
    one for each window, where the real and imaginary parts of a spectrum (rectangular window, steps of a quarter
    window, reflected ends) are two channels. Five bands of bins go through weight normalised convolutions of their own,
    three of which have strides of 2 bins, with LeakyReLU 0.1, and then side by side through the last convolution.
    Initial weights are PyTorch's.

    Takes `[B, C, samples]`; logits `[B * C, 1, ...]`, features all maps but the logits.

    Args:
        windows: window lengths in samples. width: channels of the bands' layers. period_widths: see `MultiPeriod`.
    """

    def __init__(
        self,
        *,
        windows: tuple[int, ...] = (2048, 1024, 512),
        width: int = 32,
        period_widths: tuple[int, ...] = (32, 128, 512, 1024, 1024),
    ):
        super().__init__()
        self.windows = windows
        self.periods = MultiPeriod(widths=period_widths, features=HIDDEN, fill_whole_rows=True)
        self.spectra = nn.ModuleList(BandedSpectrum(width) for _ in windows)

    def forward(self, audio: Tensor) -> Judgements:
        audio = by_channel(audio, max(self.windows) // 2 + 1)
        audio = audio - audio.mean(dim=-1, keepdim=True)
        audio = 0.8 * audio / (audio.abs().amax(dim=-1, keepdim=True) + 1e-9)
        of_spectra = [network(stft(audio, window)) for network, window in zip(self.spectra, self.windows, strict=True)]
        return self.periods(audio) + of_spectra


class BandedSpectrum(nn.Module):
    """The network of `DAC` for the spectrum of one window."""

    EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges of the bands, as shares of the bins

    def __init__(self, width: int):
        super().__init__()
        self.bands = nn.ModuleList(self._stack(width) for _ in self.EDGES[1:])
        self.output = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    @staticmethod
    def _stack(width: int) -> nn.ModuleList:
        convolutions = [
            nn.Conv2d(2, width, (3, 9), padding=(1, 4)),
            *(nn.Conv2d(width, width, (3, 9), (1, 2), (1, 4)) for _ in range(3)),
            nn.Conv2d(width, width, 3, padding=1),
        ]
        return nn.ModuleList(weight_norm(convolution) for convolution in convolutions)

    def forward(self, spectrum: Tensor) -> tuple[Tensor, list[Tensor]]:
        parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        edges = [int(parts.shape[-1] * edge) for edge in self.EDGES]
        features, last = [], []
        for band, (start, stop) in zip(self.bands, pairwise(edges), strict=True):
            x = parts[..., start:stop]
            assert isinstance(band, nn.ModuleList)
            for convolution in band:
                x = functional.leaky_relu(convolution(x), 0.1)
                features.append(x)
            last.append(x)
        return self.output(torch.cat(last, dim=-1)), features


def by_channel(audio: Tensor, shortest: int = 1) -> Tensor:
    """Audio `[B, C, samples]` as float32 `[B * C, 1, samples]`; InputError if it has fewer than `shortest` samples."""
    if audio.ndim != 3 or audio.shape[-1] < shortest:
        raise InputError(
            f"this discriminator takes [batch, channels, samples], at least {shortest} of them, got {list(audio.shape)}"
        )
    return audio.float().flatten(0, 1)[:, None]


def stft(audio: Tensor, size: int, window: Tensor | None = None, center: bool = True) -> Tensor:
    """Complex spectrum `[B, size / 2 + 1, frames]` of `[B, 1, samples]`, in steps of a quarter window.

    window: weights of the samples, `[size]`; None: a rectangular window.
    """
    if window is None:
        window = torch.ones(size, device=audio.device)
    return torch.stft(audio[:, 0], size, size // 4, size, window, center, return_complex=True)
