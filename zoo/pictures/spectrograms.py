"""Spectrograms: levels in decibels, and their image in the colours that every figure uses."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DYNAMIC_RANGE = 80.0  # decibels below the reference; what is quieter is black
COLORS = "magma"  # matplotlib's name of the colour map
WINDOW, SHORTEST_HOP = 1024, 64  # samples
STEPS = 64  # shades of an image: few compress well, and 64 of 1.25 dB are not seen as steps


def levels(audio: Tensor, columns: int) -> Tensor:
    """Compute the spectrogram of the first channel in decibels.

    Args:
        audio: float `[channels, samples]`.
        columns: how many pixels wide the figure is; the windows are spaced so that there is about one for each.

    Returns:
        float32 `[513, frames]`, from the lowest frequency to the highest.
    """
    hop = max(SHORTEST_HOP, audio.shape[1] // columns)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(audio[0].float(), WINDOW, hop, window=window, pad_mode="constant", return_complex=True)
    return 20 * spectrum.abs().clamp(min=1e-8).log10()


def spectrogram(audio: Tensor, reference: Tensor, size: tuple[int, int]) -> Image.Image:
    """Draw the spectrogram of the first channel.

    Args:
        audio: float `[channels, samples]`.
        reference: float `[channels, samples]`; its loudest moment has the brightest colour, so that spectrograms
            drawn with one reference can be compared.
        size: width and height in pixels.

    Returns:
        An image with a palette, time to the right, frequency from 0 at the bottom to half the sample rate.
    """
    from matplotlib import colormaps

    decibels = levels(audio, size[0]) - levels(reference, size[0]).amax()
    share = (decibels / DYNAMIC_RANGE + 1).clamp(0, 1).flip(0)
    grey = Image.fromarray((share * 255).round().to(torch.uint8).numpy()).resize(size, Image.Resampling.BILINEAR)
    step = 256 // STEPS
    image = Image.fromarray(np.asarray(grey) // step * step).convert("L")
    colors = (colormaps[COLORS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(colors.tobytes())
    return image
