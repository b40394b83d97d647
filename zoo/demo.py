"""The demo: samples, and what a user adds, through every variant whose weights ship with the package.

It works offline. Of each signal it writes what can be judged by eye and ear: the original beside the reconstruction,
as pictures, spectrograms, frames, or traces and distances of a protein; sound, clip and protein also as files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo import loading, media, modalities, registry
from zoo.errors import InputError, MediaError, ZooError
from zoo.files import atomic_path
from zoo.metrics import METRICS, psnr
from zoo.modalities.structure import ATOMS
from zoo.samples import samples
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode import Figures, Reconstruction, reconstruct
from zoo.transcode.paths import find_sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MODALITIES = modalities.NAMES
# Of pictures and clips the short side is resized to these, the centre cropped; a network of one size gets its own.
# What follows the limits of audio, video and structures is left out.
LIMITS = {
    "image": {"resolution": 256},
    "audio": {"seconds": 10.0},
    "video": {"resolution": 128, "frames": 33},
    "structure": {"residues": 256},
}

# Pictures, in pixels of the page
PAGE_WIDTH, MARGIN, HEADER, PANEL, GAP, FOOTER = 1088, 24, 92, 512, 16, 24
DYNAMIC_RANGE = 80.0  # dB, of spectrograms
STILLS, STILL_GAP = 4, 4  # of a clip
BREAK = 8.0  # angstrom between CA atoms: what is farther apart is no bond but a gap in the chain
ALPHA = ATOMS.index("CA")


@dataclass(frozen=True)
class DemoResult:
    """One input through one variant.

    files: what was written, the comparison first; none where there is an `error`.
    """

    input: str
    modality: str
    variant: str
    figures: Figures | None = None
    files: tuple[Path, ...] = ()
    error: ZooError | None = None


class Demo:
    """The results in order, each made when it is asked for; `len` is their number.

    Args:
        paths: images, audio, video and structures, and folders of them, to take besides the samples. Pictures become
            256x256 and clips 128x128 where the network takes any size. Of audio the first ten seconds are taken, of
            video the first 33 frames, of structures the first 256 residues.
        out: folder of what is written; None: `zoo-demo` here, with a number behind it if that exists.
        chain: id of the chain to take from structures among `paths`; None: the only one.
        overwrite: whether files that are there already are replaced.

    Attributes:
        folder: where everything is written, in a subfolder for each variant.

    Raises:
        InputError: a file that is none of these, or of which no variant with shipped weights decodes the kind.
        MediaError: a path that does not exist, or a folder without any of these.
    """

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        out: str | Path | None = None,
        *,
        chain: str | None = None,
        overwrite: bool = False,
    ):
        self.folder = Path(out) if out is not None else next(name for name in numbered("zoo-demo") if not name.exists())
        self.overwrite = overwrite
        sources: dict[str, tuple[str, Path | Image, str | None]] = {
            name: (modality, source, None) for modality in MODALITIES for name, source in samples(modality).items()
        }
        variants = [variant for variant in map(registry.info, registry.list_tokenizers()) if variant.shipped]
        specs = [variant.spec for variant in variants if variant.builder.encode_only is None]
        ready = [modality for modality in MODALITIES if any(spec.modality == modality for spec in specs)]
        for path, _ in find_sources(paths, lambda path: media.media_files(path, *MODALITIES)):
            if media.modality_of(path) not in ready:
                raise InputError(f"{path}: no weights that ship with zoo decode it; the demo takes {', '.join(ready)}")
            name = next(str(name) for name in numbered(path.stem) if str(name) not in sources)
            sources[name] = (media.modality_of(path), path, chain)
        self._work = [
            (name, source, chain, spec)
            for name, (modality, source, chain) in sources.items()
            for spec in specs
            if spec.modality == modality
        ]

    def __len__(self) -> int:
        return len(self._work)

    def __iter__(self) -> Iterator[DemoResult]:
        load = cache(loading.load)
        for name, source, chain, spec in self._work:
            try:
                files = self._files(name, spec)
                tokenizer = load(spec.name)
                signal, frame_rate = prepare(tokenizer, source, chain)
                result = reconstruct(tokenizer, signal)
                if spec.modality == "structure":
                    result = replace(result, reconstruction=superposed(result.reconstruction, result.original))
                self._write(files, f"{name}, {spec.name}", tokenizer, result, frame_rate)
                yield DemoResult(name, spec.modality, spec.name, result.figures, files)
            except ZooError as error:
                yield DemoResult(name, spec.modality, spec.name, error=error)

    def _files(self, name: str, spec: TokenizerSpec) -> tuple[Path, ...]:
        """What is to be written, the comparison first, in a folder that exists."""
        folder, suffix = self.folder / spec.name, modalities.get(spec.modality).signal_suffix
        suffixes = (".png",) if spec.modality == "image" else (".png", f".original{suffix}", suffix)
        files = tuple(folder / f"{name}{suffix}" for suffix in suffixes)
        for path in files:
            if path.exists() and not self.overwrite:
                raise MediaError(f"{path}: exists already, and overwrite is not set")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be made: {error.strerror}") from error
        return files

    def _write(
        self,
        files: tuple[Path, ...],
        title: str,
        tokenizer: Tokenizer,
        result: Reconstruction,
        frame_rate: float | None,
    ) -> None:
        comparison, *signals = files
        with atomic_path(comparison, self.overwrite) as temporary:
            picture(title, tokenizer, result).savefig(temporary)
        for path, signal in zip(signals, (result.original, result.reconstruction), strict=False):
            tokenizer.modality.write(path, signal[0], tokenizer.spec, frame_rate=frame_rate, overwrite=self.overwrite)


def prepare(tokenizer: Tokenizer, source: Path | Image, chain: str | None) -> tuple[Tensor, float | None]:
    """What is taken of a source, as `encode` takes it, and the frames per second of video."""
    limits = dict(LIMITS[tokenizer.spec.modality])
    if not tokenizer.spec.variable_size:
        limits.pop("resolution", None)
    signal = tokenizer.modality.load(source, tokenizer.spec, **tokenizer.file_options(chain=chain), **limits)
    return signal.values[None], signal.frame_rate


def superposed(structure: Tensor, fixed: Tensor) -> Tensor:
    """`[1, residues, 5, 3]` turned and moved onto `fixed` by the CA atoms that both have."""
    from biotite.structure import superimpose

    alphas = structure[0, :, ALPHA], fixed[0, :, ALPHA]
    known = (alphas[0] + alphas[1]).isfinite().all(dim=-1)
    _, transform = superimpose(*(atoms[known].numpy() for atoms in reversed(alphas)))
    present = structure.isfinite().all(dim=-1)
    moved = structure.clone()
    moved[present] = torch.from_numpy(transform.apply(structure[present].numpy())).float()
    return moved


def numbered(name: str) -> Iterator[Path]:
    """`name`, `name-2`, `name-3`, ..."""
    return itertools.chain([Path(name)], (Path(f"{name}-{number}") for number in itertools.count(2)))


# Pictures


def picture(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    """The page on which original and reconstruction are compared."""
    spec = tokenizer.spec
    if spec.tail_drop:
        return picture_row(title, tokenizer, result)
    pages = {"image": picture_pair, "audio": spectrogram_pair, "video": stills, "structure": traces_and_distances}
    return pages[spec.modality](title, result, spec)


def picture_pair(title: str, result: Reconstruction, spec: TokenizerSpec) -> Figure:
    """Original and reconstruction side by side."""
    height, width = shown(result.original, PANEL)
    figure = page(title, result.figures, spec, HEADER + height + FOOTER)
    for number, (label, image) in enumerate(pair(result)):
        show(panel(figure, MARGIN + number * (width + GAP), FOOTER, width, height, label), image[0])
    return figure


def picture_row(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    """The original, then what the first 1, 4, 16, ... and all tokens decode to, with the PSNR of each."""
    spec = tokenizer.spec
    counts = [4**power for power in range(spec.num_tokens) if 4**power < spec.num_tokens] + [spec.num_tokens]
    panels = [("original", "", result.original)]
    for count in counts:
        image = tokenizer.decode(result.codes[..., :count]).float().cpu()
        quality = f"PSNR {float(psnr(image, result.original)):.2f} dB"
        panels.append((f"{count} token{'s' if count > 1 else ''}", quality, image))
    height, width = shown(result.original, (PAGE_WIDTH - 2 * MARGIN + GAP) // len(panels) - GAP)
    figure = page(title, result.figures, spec, HEADER + height + 2 * FOOTER)
    for number, (label, quality, image) in enumerate(panels):
        axes = panel(figure, MARGIN + number * (width + GAP), 2 * FOOTER, width, height, label)
        show(axes, image[0])
        axes.text(0, -0.03, quality, fontsize=10, color="0.35", va="top", transform=axes.transAxes)
    return figure


def stills(title: str, result: Reconstruction, spec: TokenizerSpec) -> Figure:
    """A few frames from the first to the last, the originals above the reconstructions."""
    frames = sorted({round(x) for x in torch.linspace(0, result.original.shape[2] - 1, STILLS).tolist()})
    height, width = shown(result.original, (PAGE_WIDTH - 2 * MARGIN + STILL_GAP) // STILLS - STILL_GAP)
    figure = page(title, result.figures, spec, HEADER + 2 * height + 2 * FOOTER)
    for row, (label, clip) in enumerate(pair(result)):
        for column, frame in enumerate(frames):
            told = f"{label}, frame {frame + 1}" if column == 0 else str(frame + 1)
            y = FOOTER + (1 - row) * (height + FOOTER)
            show(panel(figure, MARGIN + column * (width + STILL_GAP), y, width, height, told), clip[0, :, frame])
    return figure


def shown(image: Tensor, room: int) -> tuple[int, int]:
    """Height and width of pictures `[..., height, width]` in `room` pixels: each pixel as many, where they fit."""
    height, width = image.shape[-2:]
    scale = room / max(height, width)
    scale = int(scale) if scale >= 1 else scale
    return round(height * scale), round(width * scale)


def show(axes: Axes, image: Tensor) -> None:
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
    axes.axis("off")


def spectrogram_pair(title: str, result: Reconstruction, spec: TokenizerSpec) -> Figure:
    """The first channel's spectrograms of original and reconstruction, below their waveforms and on one scale."""
    figure = page(title, result.figures, spec, HEADER + 420)
    left, width = 76, 440
    reference = spectrogram(result.original).amax()
    seconds = result.original.shape[-1] / spec.sample_rate
    for number, (label, audio) in enumerate(pair(result)):
        x = left + number * (width + GAP)
        wave = panel(figure, x, 332, width, 88, label)
        wave.plot(
            torch.arange(audio.shape[-1]).numpy() / spec.sample_rate,
            audio[0, 0].numpy(),
            color="#33506b",
            linewidth=0.5,
        )
        peak = 1.05 * max(float(result.original[0, 0].abs().max()), 1e-3)
        wave.set(xlim=(0, seconds), ylim=(-peak, peak), xticks=[], yticks=[])
        axes = panel(figure, x, 56, width, 264)
        picture = axes.imshow(
            (spectrogram(audio) - reference).numpy(),
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, spec.sample_rate / 2000),
            vmin=-DYNAMIC_RANGE,
            vmax=0,
            cmap="magma",
        )
        axes.set_xlabel("seconds")
        if number == 0:
            axes.set_ylabel("kHz")
        else:
            axes.set_yticks([])
    scale = panel(figure, left + 2 * width + 2 * GAP, 56, 12, 264)
    figure.colorbar(picture, cax=scale, label="dB")
    return figure


def spectrogram(audio: Tensor, size: int = 1024, hop_length: int = 256) -> Tensor:
    """Level in dB of the first channel of `[1, channels, samples]`, `[size / 2 + 1, frames]`."""
    window = torch.hann_window(size)
    spectrum = torch.stft(audio[0, 0], size, hop_length, window=window, pad_mode="constant", return_complex=True)
    return 20 * spectrum.abs().clamp(min=1e-8).log10()


def traces_and_distances(title: str, result: Reconstruction, spec: TokenizerSpec) -> Figure:
    """CA atoms: traces on one another, seen from where the original is broadest, and a map of the distances."""
    side, bottom = 440, 48
    figure = page(title, result.figures, spec, HEADER + side + bottom)
    chains = [structure[0, :, ALPHA].double() for _, structure in pair(result)]
    axes = panel(figure, MARGIN, bottom, side, side, "reconstruction from blue (N) to red (C), original grey")
    draw_traces(axes, *chains)
    original, reconstruction = (torch.cdist(chain, chain) for chain in chains)
    left = 2 * MARGIN + side + 40
    axes = panel(figure, left, bottom, side, side, "CA distances: original above, reconstruction below the diagonal")
    distances = axes.imshow(
        (original.triu() + reconstruction.tril()).numpy(),
        extent=(0.5, len(original) + 0.5, len(original) + 0.5, 0.5),
        vmin=0,
        vmax=float(original.max()),
        cmap="viridis_r",
    )
    axes.set(xlabel="residue", ylabel="residue")
    scale = panel(figure, left + side + GAP, bottom, 12, side)
    figure.colorbar(distances, cax=scale, label="angstrom")
    return figure


def draw_traces(axes: Axes, original: Tensor, reconstruction: Tensor) -> None:
    """CA atoms `[residues, 3]` joined by curves; what is nearer is wider and lies over what is farther."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    center = original.mean(dim=0)
    turn = torch.linalg.svd(original - center).Vh.T
    grey, rainbow = ["0.8"] * len(original), colormaps["turbo"](torch.linspace(0.1, 0.9, len(original)).numpy())
    lines = []  # of each its depth, points, colour and width
    for chain, color, width, behind in ((original, grey, 8.0, 2.0), (reconstruction, rainbow, 3.0, 0.0)):
        turned = (chain - center) @ turn
        known = turned.diff(dim=0).norm(dim=-1) < BREAK
        lines += [
            (float(curve[:, 2].mean()) - behind, curve[:, :2].numpy(), color[i], width)
            for i, curve in enumerate(curves(turned))
            if known[i] and curve.isfinite().all()
        ]
    lines.sort(key=lambda line: line[0])
    low, high = (lines[0][0], lines[-1][0]) if lines else (0.0, 0.0)
    axes.add_collection(
        LineCollection(
            [points for _, points, _, _ in lines],
            colors=[color for _, _, color, _ in lines],
            linewidths=[width * (0.7 + 0.6 * (depth - low) / max(high - low, 1e-6)) for depth, _, _, width in lines],
            capstyle="round",
        )
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.autoscale_view()


def curves(points: Tensor, steps: int = 8) -> Tensor:
    """Points `[n, 3]` to Catmull-Rom curves from each to the next, `[n - 1, steps + 1, 3]`."""
    points = torch.cat([points[:1], points, points[-1:]])
    before, start, end, after = points[:-3], points[1:-2], points[2:-1], points[3:]
    t = torch.linspace(0, 1, steps + 1, dtype=points.dtype)[:, None]
    curve = 2 * start[:, None] + (end - before)[:, None] * t
    curve = curve + (2 * before - 5 * start + 4 * end - after)[:, None] * t**2
    return (curve + (3 * (start - end) + after - before)[:, None] * t**3) / 2


def pair(result: Reconstruction) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("original", result.original), ("reconstruction", result.reconstruction)


def page(title: str, figures: Figures, spec: TokenizerSpec, height: int) -> Figure:
    """An empty page with the title and the figures in its header."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE_WIDTH / 100, height / 100), dpi=100, facecolor="white")
    figure.text(MARGIN / PAGE_WIDTH, 1 - 20 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(MARGIN / PAGE_WIDTH, 1 - 44 / height, caption(figures, spec), fontsize=10, color="0.35", va="top")
    return figure


def caption(figures: Figures, spec: TokenizerSpec) -> str:
    parts = [
        f"{figures.tokens:,} tokens",
        f"{figures.bits:,.0f} bits",
        f"1/{figures.compression_ratio:.0f} of the size",
    ]
    for name, value in figures.quality.items():
        metric = METRICS[spec.modality][name]
        parts.append(f"{metric.label} {metric.text(value)} {metric.unit}".rstrip())
    return "   ".join(parts)


def panel(figure: Figure, x: int, y: int, width: int, height: int, label: str = "") -> Axes:
    """Axes of a size in pixels, counted from the page's lower left corner."""
    page_width, page_height = figure.get_size_inches() * figure.dpi
    axes = figure.add_axes((x / page_width, y / page_height, width / page_width, height / page_height))
    axes.set_title(label, fontsize=10, color="0.35", loc="left", pad=5)
    axes.tick_params(labelsize=9, color="0.6")
    axes.spines[:].set(color="0.6", linewidth=0.6)
    return axes
