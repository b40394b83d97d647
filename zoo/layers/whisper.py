"""Blocks of Whisper's encoder: the log-mel front, two convolutions, positions, transformer layers.

Paper: Robust Speech Recognition via Large-Scale Weak Supervision (ICML 2023, arXiv 2212.04356).
Audio is at 16 kHz; a mel frame is 10 ms, and the convolutions leave one frame for 20 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

SAMPLE_RATE = 16000
HOP_LENGTH = 160  # samples from one mel frame to the next
N_FFT = 400
WINDOW_SECONDS = 30  # what Whisper's positions reach


class LogMel(nn.Module):
    """Log-mel spectrogram: `[B, samples]`, more than 200 of them, to float32 `[B, bands, floor(samples / 160)]`.

    Bands have Slaney's scale and norms, up to 8 kHz. What is weaker than the item's loudest value by more than 80 dB
    is lifted to that level, so that silence after a clip changes nothing else, and a louder passage does.
    """

    filters: Tensor

    def __init__(self, bands: int):
        super().__init__()
        self.register_buffer("filters", mel_filters(bands), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        log = self.log_of(spectrum(audio, center=True)[..., :-1])
        return lifted(log, log.amax(dim=(1, 2), keepdim=True))

    def log_of(self, spectrum: Tensor) -> Tensor:
        power = spectrum.real.square() + spectrum.imag.square()
        return (self.filters.float().mT @ power).clamp(min=1e-10).log10()

    def in_windows(self, audio: Tensor, window: int, step: int) -> Iterator[Tensor]:
        """Yield `forward`'s result in windows of `window` frames that start `step` apart, until one reaches the end.

        Beside the logarithms of the whole, no more than a window is computed at once.
        """
        frames = audio.shape[-1] // HOP_LENGTH
        padded = F.pad(audio.float(), (N_FFT // 2, N_FFT // 2), mode="reflect")
        log = padded.new_empty(len(audio), self.filters.shape[1], frames)
        for start in range(0, frames, window):
            stop = min(start + window, frames)
            part = padded[:, start * HOP_LENGTH : (stop - 1) * HOP_LENGTH + N_FFT]
            log[..., start:stop] = self.log_of(spectrum(part, center=False))
        loudest = log.amax(dim=(1, 2), keepdim=True)
        for start in range(0, max(frames - window, 0) + step, step):
            yield lifted(log[..., start : start + window], loudest)


def spectrum(audio: Tensor, *, center: bool) -> Tensor:
    """Return complex `[B, 201, frames]`; `center` reflects half a window at either end of the audio."""
    window = torch.hann_window(N_FFT, device=audio.device)
    return torch.stft(audio.float(), N_FFT, HOP_LENGTH, window=window, center=center, return_complex=True)


def lifted(log: Tensor, loudest: Tensor) -> Tensor:
    """Return decimal logarithms, none of them less than `loudest` by more than 8, in about -1 to 1."""
    return (torch.maximum(log, loudest - 8) + 4) / 4


def mel_filters(bands: int) -> Tensor:
    """Return triangles on Slaney's mel scale, each of area 1, as float32 `[N_FFT / 2 + 1, bands]`."""
    step = math.log(6.4) / 27  # of the logarithm, per mel above 1 kHz, which is mel 15
    mels = torch.linspace(0, 15 + math.log(SAMPLE_RATE / 2000) / step, bands + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * step))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = torch.arange(N_FFT // 2 + 1, dtype=torch.float64)[:, None] * (SAMPLE_RATE / N_FFT)
    triangles = torch.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre))
    return (triangles.clamp(min=0) * 2 / (high - low)).float()


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return positions float32 `[length, width]`: sines in the first half of the channels, cosines in the second."""
    scale = math.log(10000) / (width // 2 - 1)
    rates = torch.exp(-scale * torch.arange(width // 2, device=device))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Stem(nn.Module):
    """Two convolutions, of which the second halves the frames: `[B, bands, frames]` to `[B, ceil(frames / 2), width]`.

    A causal one sees no frame after its own. Of a first one with `stride` 2, the second sees `ceil(frames / 2)`.
    """

    def __init__(self, bands: int, width: int, *, causal: bool = False, stride: int = 1):
        super().__init__()
        self.pads = (2, 0) if causal else (1, 1)
        self.conv1 = nn.Conv1d(bands, width, 3, stride=stride)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv1(F.pad(mel, self.pads)))
        return F.gelu(self.conv2(F.pad(x, self.pads))).mT


class Attention(nn.Module):
    """Attention of several heads, whose keys have no bias."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        q, k, v = (self.heads(project(x)) for project in (self.query, self.key, self.value))
        return self.attend(q, k, v, allowed)

    def heads(self, x: Tensor) -> Tensor:
        # Contiguous, because PyTorch otherwise uses a kernel that stores the matrix of all frames by all frames.
        return rearrange(x, "b t (h c) -> b h t c", h=self.num_heads).contiguous()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
        attended = F.scaled_dot_product_attention(q, k, v, allowed)
        return self.out(rearrange(attended, "b h t c -> b t (h c)"))


class Layer(nn.Module):
    """Attention, then an MLP, each after a norm; takes and returns `[B, frames, width]`.

    allowed: bool `[frames, frames]`, which keys (last axis) a query sees; None: all of them.
    """

    def __init__(self, width: int, num_heads: int, hidden_dim: int, attention: type[Attention] = Attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden_dim)
        self.contract = nn.Linear(hidden_dim, width)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), allowed)
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class Transformer(nn.Module):
    """Positions, layers that see all frames, a norm; takes and returns `[B, frames, width]`."""

    def __init__(self, width: int, num_heads: int, hidden_dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, num_heads, hidden_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def layer_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Return the rules of a key map for numbered layers, as transformers and most authors name them."""
    names = {
        "self_attn_layer_norm.": "norm1.",
        "self_attn.q_proj.": "attention.query.",
        "self_attn.k_proj.": "attention.key.",
        "self_attn.v_proj.": "attention.value.",
        "self_attn.out_proj.": "attention.out.",
        "final_layer_norm.": "norm2.",
        "fc1.": "expand.",
        "fc2.": "contract.",
    }
    return [(f"{published}.{{i}}.{theirs}", f"{ours}.{{i}}.{name}") for theirs, name in names.items()]
