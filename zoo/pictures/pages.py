"""Pages that compare originals and reconstructions side by side, drawn by matplotlib.

A page is 1088 pixels wide, with a title and a line below it at the top. The functions return matplotlib figures;
`savefig` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from zoo.pictures.images import fitted, still_indices, to_image
from zoo.pictures.spectrograms import COLORS, DYNAMIC_RANGE, spectrogram
from zoo.pictures.structures import Bond, ca_atoms, distance_map, trace_bonds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels
WIDTH, MARGIN, HEADER, GAP, FOOTER = 1088, 24, 92, 16, 24
STILL_GAP = 4
PLOT_SIDE, PLOT_BOTTOM = 440, 56
WAVE_HEIGHT, SPECTROGRAM_HEIGHT = 88, 264
STILLS = 4  # of a clip
DOTS_PER_INCH, POINTS_PER_INCH = 100, 72
SOFT, FRAME = "0.35", "0.6"  # matplotlib's greys for text and for frames


@dataclass(frozen=True)
class Panel:
    """An image `[3, H, W]` in [0, 1] with a label above it and a note below it."""

    label: str
    image: Tensor
    note: str = ""


class Page:
    """A white page with a title, a line of text below it, and panels placed in pixels.

    Attributes:
        figure: the matplotlib figure.
    """

    def __init__(self, title: str, subtitle: str, height: int):
        from matplotlib.figure import Figure

        size = WIDTH / DOTS_PER_INCH, height / DOTS_PER_INCH
        self.figure, self.height = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor="white"), height
        self.figure.text(MARGIN / WIDTH, 1 - 20 / height, title, fontsize=13, fontweight="bold", va="top")
        self.figure.text(MARGIN / WIDTH, 1 - 44 / height, subtitle, fontsize=10, color=SOFT, va="top")

    def axes(self, x: int, y: int, width: int, height: int, label: str = "") -> Axes:
        """Add axes of a size in pixels; `x` and `y` count from the lower left corner of the page."""
        place = x / WIDTH, y / self.height, width / WIDTH, height / self.height
        axes = self.figure.add_axes(place)
        axes.set_title(label, fontsize=10, color=SOFT, loc="left", pad=5)
        axes.tick_params(labelsize=9, color=FRAME)
        axes.spines[:].set(color=FRAME, linewidth=0.6)
        return axes

    def image(self, x: int, y: int, image: Image.Image, label: str, note: str = "") -> None:
        """Add an image pixel by pixel, with a label above it and a note below it."""
        axes = self.axes(x, y, *image.size, label)
        axes.imshow(image, interpolation="nearest")
        axes.axis("off")
        axes.text(0, -0.03, note, fontsize=10, color=SOFT, va="top", transform=axes.transAxes)


def image_page(title: str, subtitle: str, panels: Sequence[Panel]) -> Figure:
    """Show images of one size in a row.

    Args:
        title, subtitle: title of the page, and the line below it.
        panels: from left to right. Small images are enlarged by a whole number, so that each pixel is a square.
    """
    room = (WIDTH - 2 * MARGIN + GAP) // len(panels) - GAP
    images = [fitted(to_image(panel.image), room) for panel in panels]
    width, height = images[0].size
    bottom = 2 * FOOTER if any(panel.note for panel in panels) else FOOTER
    page = Page(title, subtitle, HEADER + height + bottom)
    for number, (panel, image) in enumerate(zip(panels, images, strict=True)):
        page.image(MARGIN + number * (width + GAP), bottom, image, panel.label, panel.note)
    return page.figure


def clip_page(title: str, subtitle: str, clips: Mapping[str, Tensor]) -> Figure:
    """Show a few frames of each clip from the first to the last, one clip below the other.

    Args:
        title, subtitle: title of the page, and the line below it.
        clips: float `[3, T, H, W]` in [0, 1] of one size, by label.
    """
    room = (WIDTH - 2 * MARGIN + STILL_GAP) // STILLS - STILL_GAP
    rows = {
        label: {index: fitted(to_image(clip[:, index]), room) for index in still_indices(clip.shape[1], STILLS)}
        for label, clip in clips.items()
    }
    width, height = next(still for stills in rows.values() for still in stills.values()).size
    page = Page(title, subtitle, HEADER - FOOTER + len(rows) * (height + FOOTER) + FOOTER)
    for row, (label, stills) in enumerate(rows.items()):
        y = FOOTER + (len(rows) - 1 - row) * (height + FOOTER)
        for column, (index, still) in enumerate(stills.items()):
            text = f"{label}, frame {index + 1}" if column == 0 else str(index + 1)
            page.image(MARGIN + column * (width + STILL_GAP), y, still, text)
    return page.figure


def sound_page(title: str, subtitle: str, sounds: Mapping[str, Tensor], sample_rate: int) -> Figure:
    """Show the waveform and the spectrogram of the first channel of each sound, on the scale of the first one.

    Args:
        title, subtitle: title of the page, and the line below it.
        sounds: float `[channels, samples]`, by label, from left to right.
        sample_rate: sample rate in Hz.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    page = Page(title, subtitle, HEADER + 12 + WAVE_HEIGHT + SPECTROGRAM_HEIGHT + PLOT_BOTTOM)
    left, width = 76, (2 * (PLOT_SIDE + GAP)) // len(sounds) - GAP
    reference = next(iter(sounds.values()))
    seconds = reference.shape[1] / sample_rate
    peak = 1.05 * max(float(reference[0].abs().max()), 1e-3)
    for number, (label, sound) in enumerate(sounds.items()):
        x = left + number * (width + GAP)
        wave = page.axes(x, PLOT_BOTTOM + SPECTROGRAM_HEIGHT + 12, width, WAVE_HEIGHT, label)
        times = torch.arange(sound.shape[1]).numpy() / sample_rate
        wave.plot(times, sound[0].numpy(), color="#33506b", linewidth=0.5)
        wave.set(xlim=(0, seconds), ylim=(-peak, peak), xticks=[], yticks=[])
        axes = page.axes(x, PLOT_BOTTOM, width, SPECTROGRAM_HEIGHT)
        image = spectrogram(sound, reference, (width, SPECTROGRAM_HEIGHT)).convert("RGB")
        extent = (0, seconds, 0, sample_rate / 2000)
        axes.imshow(image, aspect="auto", extent=extent, interpolation="nearest")
        axes.set_xlabel("seconds")
        if number == 0:
            axes.set_ylabel("kHz")
        else:
            axes.set_yticks([])
    scale = page.axes(left + len(sounds) * (width + GAP), PLOT_BOTTOM, 12, SPECTROGRAM_HEIGHT)
    colors = ScalarMappable(Normalize(-DYNAMIC_RANGE, 0), COLORS)
    page.figure.colorbar(colors, cax=scale, label="dB")
    return page.figure


def structure_page(title: str, subtitle: str, original: Tensor, reconstruction: Tensor) -> Figure:
    """Show the CA atoms of two structures: their traces on one another, and a map of their distances.

    Args:
        title, subtitle: title of the page, and the line below it.
        original, reconstruction: float `[residues, 5, 3]` in angstrom, in one frame of reference.
    """
    bottom, left = 48, 2 * MARGIN + PLOT_SIDE + 40
    page = Page(title, subtitle, HEADER + PLOT_SIDE + bottom)
    chains = ca_atoms(original), ca_atoms(reconstruction)
    label = "reconstruction from blue (N) to red (C), original grey"
    draw_traces(page.axes(MARGIN, bottom, PLOT_SIDE, PLOT_SIDE, label), trace_bonds(chains), len(chains[0]))
    label = "CA distances: original above, reconstruction below the diagonal"
    axes = page.axes(left, bottom, PLOT_SIDE, PLOT_SIDE, label)
    distances, end = distance_map(*chains), len(chains[0]) + 0.5
    longest = float(distances.triu().nan_to_num().max())
    image = axes.imshow(distances.numpy(), extent=(0.5, end, end, 0.5), vmin=0, vmax=longest, cmap="viridis_r")
    axes.set(xlabel="residue", ylabel="residue")
    scale = page.axes(left + PLOT_SIDE + GAP, bottom, 12, PLOT_SIDE)
    page.figure.colorbar(image, cax=scale, label="angstrom")
    return page.figure


def draw_traces(axes: Axes, bonds: Sequence[Bond], num_residues: int) -> None:
    """Draw bonds in their order: the first chain in grey, the others in the colours of the rainbow from N to C."""
    from matplotlib import colormaps
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    rainbow = colormaps["turbo"](torch.linspace(0.1, 0.9, num_residues).numpy())
    curve = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    points_per_unit = PLOT_SIDE / 400 * POINTS_PER_INCH / DOTS_PER_INCH
    axes.add_collection(
        PathCollection(
            [Path(bond.points, curve) for bond in bonds],
            facecolors="none",
            edgecolors=[rainbow[bond.residue] if bond.chain else (0.8, 0.8, 0.8, 1.0) for bond in bonds],
            linewidths=[bond.width * points_per_unit for bond in bonds],
            capstyle="round",
        )
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.autoscale_view()
