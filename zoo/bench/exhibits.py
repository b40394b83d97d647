"""Examples to look at and listen to: originals beside reconstructions, of limited size, inside the report itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.bench.data import original
from zoo.bench.results import Item, Point, Results
from zoo.bench.signals import Preprocessing
from zoo.bench.verdict import points_by_method, rate_text
from zoo.errors import ZooError
from zoo.modalities import Signal
from zoo.pictures.images import image_grid, shrunk, still_indices, to_image
from zoo.pictures.markup import JPEG_QUALITY, PNG_BYTES, Markup, element, image_element, joined
from zoo.pictures.plots import Palette, trace_plot
from zoo.pictures.sounds import FLAC_BYTES, player
from zoo.pictures.spectrograms import DYNAMIC_RANGE, spectrogram
from zoo.pictures.structures import ca_atoms, superposed

MOST_METHODS = 6  # shown; a page has to be opened, too
MOST_RATES = 5  # of one method, for the median item
SIDE = 512  # pixels at most
SECONDS = 10.0  # of sound at most
STILLS, STILL_SIDE = 3, 256
SPECTROGRAM_SIZE = (640, 200)


@dataclass(frozen=True)
class Exhibit:
    """A reconstruction and the point that it belongs to; `point` is None for the original."""

    point: Point | None
    item: Item


def exhibits(results: Results, folder: Path, data: Path, palette: Palette) -> Markup | None:
    """Show the best, the median and the worst item of each tokenizer by the first metric that items have.

    Args:
        results: the points with their items.
        folder: the folder of the results, which the paths of the items' reconstructions are relative to.
        data: folder of the originals.
        palette: colours of the results' methods.

    Returns:
        The section of the page; None where no item has a figure.
    """
    metric = next((name for name in results.metrics if _is_ranked(results, name)), None)
    if metric is None:
        return None
    return Exhibits(results, folder, data, palette, metric).all()


def _is_ranked(results: Results, metric: str) -> bool:
    return results.metrics[metric]["higher_is_better"] is not None and any(
        item.metrics.get(metric) is not None for point in results.points for item in point.items
    )


class Exhibits:
    """Everything that is shown of the items, ranked by one metric."""

    def __init__(self, results: Results, folder: Path, data: Path, palette: Palette, metric: str):
        self.results, self.folder, self.data, self.palette, self.metric = results, folder, data, palette, metric
        self.facts = results.metrics[metric]
        self.preprocessing = Preprocessing(modality=results.modality, **results.data.get("preprocessing", {}))
        self.original: Callable[[str], Signal] = lru_cache(maxsize=1)(self._load)
        self.panel = PANELS[self.preprocessing.modality]

    def all(self) -> Markup:
        """Write the whole section."""
        methods = points_by_method(self.results.points)
        tokenizers = {method: points for method, points in methods.items() if not points[0].baseline} or methods
        shown = [self._method(points) for points in list(tokenizers.values())[:MOST_METHODS]]
        if more := len(tokenizers) - len(shown):
            shown.append(element("p", f"{more} further tokenizers are not shown here.", class_="soft"))
        return joined(element("p", self._explanation(), class_="soft"), *shown)

    def _explanation(self) -> str:
        return (
            f"Each tokenizer at its highest rate: the files with the best, the median and the worst "
            f"{self.facts['label']}, beside the classical codec whose rate is nearest. "
            f"{EXPLANATIONS[self.preprocessing.modality]}"
        )

    def _method(self, points: list[Point]) -> Markup | None:
        point = points[-1]
        figures = [(figure, item) for item in point.items if (figure := item.metrics.get(self.metric)) is not None]
        figures.sort(key=lambda pair: pair[0], reverse=bool(self.facts["higher_is_better"]))
        ranked = [item for _, item in figures]
        if not ranked:
            return None
        places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
        chosen: dict[int, str] = {}
        for name, place in places.items():
            chosen.setdefault(place, name)
        rows = [
            self._row(f"{name} of {len(ranked)}: {ranked[place].source}", self._beside(point, ranked[place]))
            for place, name in chosen.items()
        ]
        if len(points) > 1:
            source = ranked[len(ranked) // 2].source
            picked = sorted({round(i) for i in np.linspace(0, len(points) - 1, min(MOST_RATES, len(points)))})
            ladder = [Exhibit(points[i], item) for i in picked if (item := _item(points[i], source)) is not None]
            rows.append(self._row(f"The median file at every rate: {source}", ladder))
        rate = f"{rate_text(point.rate)} {self.results.rate_unit}"
        heading = element("h3", self.palette.name(point.method), f" at {rate}")
        return element("section", heading, *rows, class_=CLASSES.get(self.preprocessing.modality))

    def _beside(self, point: Point, item: Item) -> list[Exhibit]:
        """Return the original, the reconstruction, and that of the classical codec whose rate is nearest."""
        shown = [Exhibit(None, item), Exhibit(point, item)]
        rivals = [
            (abs(math.log(rival.rate / point.rate)), rival.label, Exhibit(rival, its_item))
            for rival in self.results.points
            if rival.baseline and rival is not point and rival.rate > 0 and point.rate > 0
            if (its_item := _item(rival, item.source)) is not None
        ]
        return [*shown, min(rivals, key=lambda rival: rival[:2])[2]] if rivals else shown

    def _row(self, title: str, shown: list[Exhibit]) -> Markup:
        figures = (self._figure(exhibit) for exhibit in shown)
        return joined(element("h4", title), element("div", *figures, class_="panels"))

    def _figure(self, exhibit: Exhibit) -> Markup | None:
        point, item = exhibit.point, exhibit.item
        if point is None:
            name, caption = "original", "the input of every method"
        else:
            value = item.metrics.get(self.metric)
            digits, unit = self.facts["digits"], self.facts["unit"]
            text = "not defined" if value is None else f"{value:,.{digits}f} {unit}".rstrip()
            name, caption = point.label, f"{self.facts['label']} {text}; {item.bytes:,.0f} bytes"
        try:
            panel = self.panel(self, exhibit, f"{item.source}, {name}")
        except (ZooError, OSError) as error:
            panel = element("p", f"Cannot be shown: {error}", class_="lost")
        if panel is None:
            return None
        return element("figure", panel, element("figcaption", element("b", name), caption))

    def _load(self, source: str) -> Signal:
        return original(self.data, source, self.preprocessing)

    def values(self, exhibit: Exhibit) -> Tensor:
        """Return the signal of an exhibit, without batch axis."""
        original = self.original(exhibit.item.source)
        if exhibit.point is None:
            return original.values
        return self.preprocessing.read(self.folder / exhibit.item.reconstruction, original)


# One panel of each modality; None where there is nothing to show.


def image_panel(shown: Exhibits, exhibit: Exhibit, title: str) -> Markup:
    return image_element(shrunk(to_image(shown.values(exhibit)), SIDE), title)


def video_panel(shown: Exhibits, exhibit: Exhibit, title: str) -> Markup:
    video = shown.values(exhibit)
    indices = still_indices(video.shape[1], STILLS)
    row = image_grid([[shrunk(to_image(video[:, index]), STILL_SIDE) for index in indices]])
    numbers = ", ".join(str(index + 1) for index in indices)
    return image_element(row, f"{title}: frames {numbers} of {video.shape[1]}", png_bytes=0)


def audio_panel(shown: Exhibits, exhibit: Exhibit, title: str) -> Markup:
    rate = shown.preprocessing.sample_rate
    assert rate is not None  # of audio
    length = round(SECONDS * rate)
    sound = shown.values(exhibit)[:, :length]
    reference = shown.original(exhibit.item.source).values[:, :length]
    description = f"Spectrogram of {title}: 0 to {rate / 2000:g} kHz, {sound.shape[1] / rate:.1f} seconds"
    image = image_element(spectrogram(sound, reference, SPECTROGRAM_SIZE), description, png_bytes=math.inf)
    return joined(image, player(sound, rate, title))


def structure_panel(shown: Exhibits, exhibit: Exhibit, title: str) -> Markup | None:
    if exhibit.point is None:  # the original is in each drawing
        return None
    original = shown.original(exhibit.item.source).values
    moved = superposed(shown.values(exhibit), original)
    chains = [
        (ca_atoms(original), "var(--ghost)"),
        (ca_atoms(moved), shown.palette.color(exhibit.point.method)),
    ]
    return trace_plot(chains, f"CA traces of {title}, on the original's")


PANELS: dict[str, Callable[[Exhibits, Exhibit, str], Markup | None]] = {
    "image": image_panel,
    "audio": audio_panel,
    "video": video_panel,
    "structure": structure_panel,
}
EXPLANATIONS: dict[str, str] = {
    "image": f"Images have sides of at most {SIDE} pixels, as PNG, or as JPEG of quality {JPEG_QUALITY} where that "
    f"would take more than {PNG_BYTES / 1000:.0f} kB.",
    "audio": f"The first {SECONDS:.0f} seconds at most, as FLAC, or as MP3 of the highest quality where that would "
    f"take more than {FLAC_BYTES / 1000:.0f} kB. Spectrograms show the first channel: {DYNAMIC_RANGE:.0f} dB, from "
    "black to white.",
    "video": f"{STILLS} frames of each, at most {STILL_SIDE} pixels wide, as JPEG of quality {JPEG_QUALITY}.",
    "structure": "Curves through the CA atoms, superposed: the original is the wide pale band. Nearer is wider.",
}
CLASSES: dict[str, str] = {"image": "pictures"}  # of the style, where panels are narrower than usual


def _item(point: Point, source: str) -> Item | None:
    return next((item for item in point.items if item.source == source), None)
