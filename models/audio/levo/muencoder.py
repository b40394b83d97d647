"""MuEncoder, the encoder of LeVo's codec: a log-mel front, strided convolutions and a conformer (MusicFM).

Papers: A Foundation Model for Music Informatics (ICASSP 2024, arXiv 2311.03318); MuCodec (arXiv 2409.13216).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from zoo.layers.overlap import overlapping

N_FFT, MEL_HOP, NUM_MELS = 2048, 240, 128  # at 24 kHz; four steps of the spectrogram are one code
MEL_MEAN, MEL_STD = 6.768444971712967, 18.417922652295623
LOUDEST = 0.8  # peak to which a louder track is brought
CHUNK_FRAMES, FRONT_REACH = 200, 3  # frames that the convolutions take at once, and how far they see


def halve_rate(audio: Tensor) -> Tensor:
    """Return audio `[B, samples]` at half the rate, `[B, ceil(samples / 2)]`, as torchaudio's Resample does."""
    rolloff, crossings = 0.99, 6
    reach = math.ceil(2 * crossings / rolloff)
    times = torch.arange(-reach, reach + 2, device=audio.device, dtype=torch.float64) / 2 * rolloff
    times = times.clamp(-crossings, crossings)
    kernel = (torch.sinc(times) * torch.cos(times * math.pi / crossings / 2).square() * rolloff / 2).to(audio.dtype)
    padded = F.pad(audio, (reach, reach + 2))[:, None]
    return F.conv1d(padded, kernel[None, None], stride=2)[:, 0, : (audio.shape[-1] + 1) // 2]


def mel_filters(device: torch.device) -> Tensor:
    """Return triangles on the HTK scale from 0 to 12 kHz, `[frequencies, mels]`, without normalisation."""
    frequencies = torch.linspace(0, 12000, N_FFT // 2 + 1, device=device)
    mels = torch.linspace(0, 2595 * math.log10(1 + 12000 / 700), NUM_MELS + 2, device=device)
    corners = 700 * (10 ** (mels / 2595) - 1)
    widths = corners.diff()
    distances = corners - frequencies[:, None]
    rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(audio: Tensor) -> Tensor:
    """Return the normalised spectrogram of audio at 24 kHz in decibels, `[B, samples]` to `[B, 128, samples / 240]`."""
    window = torch.hann_window(N_FFT, device=audio.device)
    spectrum = torch.stft(audio, N_FFT, MEL_HOP, window=window, pad_mode="reflect", return_complex=True)
    power = mel_filters(audio.device).T @ spectrum[..., :-1].abs().square()
    return (10 * power.clamp(min=1e-10).log10() - MEL_MEAN) / MEL_STD


def repeated(x: Tensor, start: int, length: int) -> Tensor:
    """Return `length` steps of `[..., steps]` from `start` on, as if it were repeated without end."""
    steps = torch.full((1,), x.shape[-1], device=x.device)
    return x[..., torch.arange(start, start + length, device=x.device).remainder(steps)]


class FrontBlock(nn.Module):
    """Residual block that halves both axes of `[B, channels_in, mels, time]`."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.shortcut_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + self.shortcut_norm(self.shortcut(x)))


class Front(nn.Module):
    """Spectrogram `[B, 128, 4 * frames]` to `[B, frames, width]`."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.blocks = nn.Sequential(FrontBlock(1, channels), FrontBlock(channels, channels))
        self.linear = nn.Linear(channels * NUM_MELS // 4, width)

    def forward(self, mel: Tensor) -> Tensor:
        parts = []
        for chunk in overlapping(mel.shape[-1] // 4, CHUNK_FRAMES, FRONT_REACH):
            h = chunk.trim(self.blocks(chunk.of(mel[:, None], 4)))
            parts.append(self.linear(rearrange(h, "b c m t -> b t (c m)")))
        return torch.cat(parts, dim=1)


def rotated(x: Tensor) -> Tensor:
    """Return `[B, heads, frames, dim]` with rotary positions, of which a pair is `dim / 2` channels apart."""
    half = x.shape[-1] // 2
    rates = 10000 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = (torch.cat([values, values], dim=-1).to(x.dtype) for values in (angles.cos(), angles.sin()))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class Attention(nn.Module):
    """Attention whose input is rotated before it becomes queries and keys; values are not."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.join(rotated(self.split(x)))
        q, k, v = (self.split(part) for part in (self.query(moved), self.key(moved), self.value(x)))
        return self.out(self.join(F.scaled_dot_product_attention(q, k, v)))

    def split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h d) -> b h t d", h=self.num_heads)

    def join(self, x: Tensor) -> Tensor:
        return rearrange(x, "b h t d -> b t (h d)")


class Convolution(nn.Module):
    """The convolution of a conformer layer, 31 frames wide."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise = nn.Conv1d(width, width, 31, padding=15, groups=width, bias=False)
        self.batch_norm = nn.BatchNorm1d(width)
        self.out = nn.Conv1d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.glu(self.expand(self.norm(x).mT), dim=1)
        return self.out(F.silu(self.batch_norm(self.depthwise(h)))).mT


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))


class ConformerLayer(nn.Module):
    def __init__(self, width: int, hidden: int, num_heads: int):
        super().__init__()
        self.feed_forward1 = feed_forward(width, hidden)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.convolution = Convolution(width)
        self.feed_forward2 = feed_forward(width, hidden)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.feed_forward1(x)
        x = x + self.attention(self.attention_norm(x))
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.feed_forward2(x))


class MuEncoder(nn.Module):
    """Stereo tracks at 48 kHz, `[B, 2 * tracks, samples]`, to `[B, tracks * width, frames]`, 25 frames a second.

    Attention sees a window of 40 seconds. A clip is repeated until it fills the last one, as the authors do: a short
    clip is encoded inside a loop of itself, and the end of a long one before its beginning.

    Args:
        depths: number of conformer layers after which each track's features are read.
        channels: channels of the convolutions. width, hidden, num_heads: sizes of the conformer.
        window_frames: frames of a window. hop_length: samples of a frame.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        channels: int,
        width: int,
        hidden: int,
        num_heads: int,
        window_frames: int,
        hop_length: int,
    ):
        super().__init__()
        self.depths, self.window_frames, self.hop_length = depths, window_frames, hop_length
        self.front = Front(channels, width)
        self.layers = nn.ModuleList(ConformerLayer(width, hidden, num_heads) for _ in range(max(depths)))

    def forward(self, audio: Tensor) -> Tensor:
        # Each window is scaled by itself, so that no copy of a long clip is made.
        tracks = rearrange(audio, "b (k s) n -> b k s n", k=len(self.depths))
        peaks = torch.maximum(tracks.amax(dim=(2, 3)), -tracks.amin(dim=(2, 3)))
        scales = repeat((peaks / LOUDEST).clamp(min=1), "b k -> b (k s) 1", s=2)
        samples, window = audio.shape[-1], self.window_frames * self.hop_length
        windows = (samples + window - 1) // window
        frames = (samples + self.hop_length - 1) // self.hop_length
        if torch.compiler.is_compiling() or self.training:
            loop = repeated(audio, 0, windows * window) / scales
            batch = rearrange(loop, "b c (w n) -> (b w) c n", n=window)
            return rearrange(self.features(batch), "(b w) d t -> b d (w t)", w=windows)[..., :frames]
        # One by one: in a batch, a sum may be rounded otherwise, and codes have to be those of the item alone.
        items = []
        for item, scale in zip(audio.split(1), scales.split(1), strict=True):
            parts = [self.features(repeated(item, start, window) / scale) for start in range(0, samples, window)]
            items.append(torch.cat(parts, dim=-1)[..., :frames])
        return torch.cat(items)

    def features(self, audio: Tensor) -> Tensor:
        """Return features `[B, tracks * width, samples // hop]` of audio as it is, `[B, 2 * tracks, samples]`."""
        stereo = audio.unflatten(1, (len(self.depths), 2))
        return torch.cat([self.track(stereo[:, k].mean(dim=1), depth) for k, depth in enumerate(self.depths)], dim=1)

    def track(self, mono: Tensor, depth: int) -> Tensor:
        half = halve_rate(mono.float())
        half = half[:, : half.shape[-1] // (4 * MEL_HOP) * (4 * MEL_HOP)]
        x = self.front(log_mel(half).to(mono.dtype))
        for layer in self.layers[:depth]:
            x = layer(x)
        return x.mT
