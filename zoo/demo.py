"""The demo: samples, and what a user adds, through every variant whose weights ship with the package.

It works offline. Of each signal it writes what can be judged by eye and ear: the original beside the reconstruction,
as pictures or as spectrograms with the sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo import catalog, media, registry
from zoo.errors import InputError, MediaError, ZooError
from zoo.files import atomic_path
from zoo.metrics import METRICS
from zoo.samples import samples
from zoo.tokenizer import Tokenizer, TokenizerSpec
from zoo.transcode import Figures, Reconstruction, find_sources, reconstruct, write_signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MODALITIES = ("image", "audio")
RESOLUTION = 256  # of pictures: the short side is resized to it, the centre cropped
SECONDS = 10.0  # of audio: what follows is left out

# Pictures, in pixels of the page
PAGE_WIDTH, MARGIN, HEADER, PANEL, GAP, FOOTER = 1088, 24, 92, 512, 16, 24
DYNAMIC_RANGE = 80.0  # dB, of spectrograms


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
        paths: images and audio, and folders of them, to take besides the samples. Pictures become 256x256, of
            audio the first ten seconds are taken.
        out: folder of what is written; None: `zoo-demo` here, with a number behind it if that exists.
        overwrite: whether files that are there already are replaced.

    Attributes:
        folder: where everything is written, in a subfolder for each variant.

    Raises:
        InputError: a file that is neither image nor audio.
        MediaError: a path that does not exist, or a folder without either.
    """

    def __init__(self, paths: Sequence[str | Path] = (), out: str | Path | None = None, *, overwrite: bool = False):
        self.folder = Path(out) if out is not None else next(name for name in numbered("zoo-demo") if not name.exists())
        self.overwrite = overwrite
        sources: dict[str, tuple[str, Path | Image]] = {
            name: (modality, source) for modality in MODALITIES for name, source in samples(modality).items()
        }
        for path, _ in find_sources(paths, images_and_audio):
            modality = media.modality_of(path)
            if modality not in MODALITIES:
                raise InputError(f"{path}: is {modality}; the demo takes images and audio")
            name = next(str(name) for name in numbered(path.stem) if str(name) not in sources)
            sources[name] = (modality, path)
        shipped = [registry.info(name).spec for name in registry.list_tokenizers() if catalog.is_shipped(name)]
        self._work = [
            (name, modality, source, spec.name)
            for name, (modality, source) in sources.items()
            for spec in shipped
            if spec.modality == modality
        ]

    def __len__(self) -> int:
        return len(self._work)

    def __iter__(self) -> Iterator[DemoResult]:
        load = cache(registry.load)
        for name, modality, source, variant in self._work:
            try:
                files = self._files(name, modality, variant)
                tokenizer = load(variant)
                result = reconstruct(tokenizer, prepare(tokenizer, source))
                self._write(files, f"{name}, {variant}", tokenizer.spec, result)
                yield DemoResult(name, modality, variant, result.figures, files)
            except ZooError as error:
                yield DemoResult(name, modality, variant, error=error)

    def _files(self, name: str, modality: str, variant: str) -> tuple[Path, ...]:
        """What is to be written, the comparison first, in a folder that exists."""
        folder = self.folder / variant
        suffixes = (".png",) if modality == "image" else (".png", ".original.wav", ".wav")
        files = tuple(folder / f"{name}{suffix}" for suffix in suffixes)
        for path in files:
            if path.exists() and not self.overwrite:
                raise MediaError(f"{path}: exists already, and overwrite is not set")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be made: {error.strerror}") from error
        return files

    def _write(self, files: tuple[Path, ...], title: str, spec: TokenizerSpec, result: Reconstruction) -> None:
        comparison, *sounds = files
        figure = picture_pair(title, result) if spec.modality == "image" else spectrogram_pair(title, result, spec)
        with atomic_path(comparison, self.overwrite) as temporary:
            figure.savefig(temporary)
        for path, sound in zip(sounds, (result.original, result.reconstruction), strict=False):
            write_signal(path, sound, spec, self.overwrite)


def prepare(tokenizer: Tokenizer, source: Path | Image) -> Tensor:
    if tokenizer.spec.modality == "image":
        return tokenizer.preprocess(source, resolution=RESOLUTION)
    return tokenizer.preprocess(source)[..., : round(SECONDS * tokenizer.spec.sample_rate)]


def images_and_audio(path: Path) -> list[Path]:
    """The file `path`, or what a folder holds of either; MediaError where there is none."""
    if not path.is_dir():
        return media.media_files(path, "image")  # any file that exists
    files = []
    for modality in MODALITIES:
        try:
            files += media.media_files(path, modality)
        except MediaError as error:
            if modality == MODALITIES[-1] and not files:
                raise MediaError(f"{path}: holds neither images nor audio") from error
    return files


def numbered(name: str) -> Iterator[Path]:
    """`name`, `name-2`, `name-3`, ..."""
    return itertools.chain([Path(name)], (Path(f"{name}-{number}") for number in itertools.count(2)))


# Pictures


def picture_pair(title: str, result: Reconstruction) -> Figure:
    """Original and reconstruction side by side, each pixel shown as four."""
    figure = page(title, result.figures, HEADER + PANEL + FOOTER)
    for number, (label, image) in enumerate(pair(result)):
        axes = panel(figure, MARGIN + number * (PANEL + GAP), FOOTER, PANEL, PANEL, label)
        axes.imshow(image[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axes.axis("off")
    return figure


def spectrogram_pair(title: str, result: Reconstruction, spec: TokenizerSpec) -> Figure:
    """The first channel's spectrograms of original and reconstruction, below their waveforms and on one scale."""
    figure = page(title, result.figures, HEADER + 420)
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


def pair(result: Reconstruction) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("original", result.original), ("reconstruction", result.reconstruction)


def page(title: str, figures: Figures, height: int) -> Figure:
    """An empty page with the title and the figures in its header."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE_WIDTH / 100, height / 100), dpi=100, facecolor="white")
    figure.text(MARGIN / PAGE_WIDTH, 1 - 20 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(MARGIN / PAGE_WIDTH, 1 - 44 / height, caption(figures), fontsize=10, color="0.35", va="top")
    return figure


def caption(figures: Figures) -> str:
    parts = [
        f"{figures.tokens:,} tokens",
        f"{figures.bits:,.0f} bits",
        f"1/{figures.compression_ratio:.0f} of the size",
    ]
    metrics = {**METRICS["image"], **METRICS["audio"]}
    for name, value in figures.quality.items():
        parts.append(f"{metrics[name].label} {metrics[name].text(value)} {metrics[name].unit}".rstrip())
    return "   ".join(parts)


def panel(figure: Figure, x: int, y: int, width: int, height: int, label: str = "") -> Axes:
    """Axes of a size in pixels, counted from the page's lower left corner."""
    page_width, page_height = figure.get_size_inches() * figure.dpi
    axes = figure.add_axes((x / page_width, y / page_height, width / page_width, height / page_height))
    axes.set_title(label, fontsize=10, color="0.35", loc="left", pad=5)
    axes.tick_params(labelsize=9, color="0.6")
    axes.spines[:].set(color="0.6", linewidth=0.6)
    return axes
