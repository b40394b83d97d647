"""What eye and ear can judge: originals beside reconstructions, in the report itself and of limited size."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.bench.page import Markup, data_uri, element, joined
from zoo.bench.plots import Palette, traces_plot
from zoo.bench.results import Item, Point, Results
from zoo.bench.signals import Preprocessing, Signal, to_pixels
from zoo.bench.verdict import families_of, rate_text
from zoo.errors import ZooError
from zoo.modalities.structure import ATOMS

MOST_FAMILIES = 6  # shown; a page has to be opened, too
MOST_RATES = 5  # of one family, of the median item
SIDE = 512  # pixels at most
PNG_BYTES = 200_000  # a larger picture becomes a JPEG
JPEG_QUALITY = 92
SECONDS = 10.0  # of sound at most
FLAC_BYTES = 400_000  # longer sound becomes an MP3
STILLS, STILL_SIDE = 3, 256
SPECTROGRAM_SIZE = (640, 200)
DYNAMIC_RANGE = 80.0  # dB
ALPHA = ATOMS.index("CA")


@dataclass(frozen=True)
class Shown:
    """A reconstruction and who made it; `point` is None for the original."""

    point: Point | None
    item: Item


def exhibits(results: Results, folder: Path, palette: Palette) -> Markup | None:
    """Best, median and worst item of each tokenizer, by the first metric; None where no item has a figure.

    Args:
        folder: which the items' reconstructions are relative to.
        palette: of the results' families.
    """
    metric = next((name for name in results.metrics if _is_ranked(results, name)), None)
    if metric is None:
        return None
    return Exhibits(results, folder, palette, metric).all()


def _is_ranked(results: Results, metric: str) -> bool:
    return results.metrics[metric]["higher_is_better"] is not None and any(
        item.metrics.get(metric) is not None for point in results.points for item in point.items
    )


class Exhibits:
    """Everything that is shown of the items, by one metric."""

    def __init__(self, results: Results, folder: Path, palette: Palette, metric: str):
        self.results, self.folder, self.palette, self.metric = results, folder, palette, metric
        self.what = results.metrics[metric]
        self.preprocessing = Preprocessing(modality=results.modality, **results.data.get("preprocessing", {}))
        self.original: Callable[[str], Signal] = lru_cache(maxsize=1)(self._load)
        self.panel = {
            "image": self._picture,
            "audio": self._sound,
            "video": self._stills,
            "structure": self._traces,
        }[results.modality]

    def all(self) -> Markup:
        families = families_of(self.results.points)
        tokenizers = {family: points for family, points in families.items() if not points[0].baseline} or families
        shown = [self._family(points) for points in list(tokenizers.values())[:MOST_FAMILIES]]
        if more := len(tokenizers) - len(shown):
            shown.append(element("p", f"{more} further tokenizers are not shown here.", class_="soft"))
        return joined(element("p", self._explanation(), class_="soft"), *shown)

    def _explanation(self) -> str:
        formats = {
            "image": f"Pictures have sides of at most {SIDE} pixels, as PNG, or as JPEG of quality {JPEG_QUALITY} "
            f"where that is over {PNG_BYTES / 1000:.0f} kB.",
            "audio": f"The first {SECONDS:.0f} seconds at most, as FLAC, or as MP3 of the highest quality where that "
            f"is over {FLAC_BYTES / 1000:.0f} kB. Spectrograms of the first channel: {DYNAMIC_RANGE:.0f} dB, from "
            "black to white.",
            "video": f"{STILLS} frames of each, at most {STILL_SIDE} pixels wide, as JPEG of quality {JPEG_QUALITY}.",
            "structure": "Lines through the CA atoms, superposed: the original as a wide pale band. What is nearer is "
            "thicker.",
        }[self.results.modality]
        return (
            f"Each tokenizer at its highest rate: the files with the best, the median and the worst "
            f"{self.what['label']}, beside the classical codec whose rate is nearest. {formats}"
        )

    def _family(self, points: list[Point]) -> Markup | None:
        point = points[-1]
        ranked = sorted(
            (item for item in point.items if item.metrics.get(self.metric) is not None),
            key=lambda item: item.metrics[self.metric],
            reverse=bool(self.what["higher_is_better"]),
        )
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
            ladder = [Shown(points[i], item) for i in picked if (item := _item(points[i], source)) is not None]
            rows.append(self._row(f"The median file at every rate: {source}", ladder))
        heading = element("h3", self.palette.name(point.family), f" at {self._rate(point)}")
        kind = "pictures" if self.results.modality == "image" else None
        return element("section", heading, *rows, class_=kind)

    def _beside(self, point: Point, item: Item) -> list[Shown]:
        shown = [Shown(None, item), Shown(point, item)]
        rivals = [
            (abs(math.log(rival.rate / point.rate)), rival.label, Shown(rival, its_item))
            for rival in self.results.points
            if rival.baseline and rival is not point and rival.rate > 0 and point.rate > 0
            if (its_item := _item(rival, item.source)) is not None
        ]
        return [*shown, min(rivals, key=lambda rival: rival[:2])[2]] if rivals else shown

    def _row(self, title: str, shown: list[Shown]) -> Markup:
        if self.results.modality == "structure":  # the original is in each drawing
            shown = [one for one in shown if one.point is not None]
        return joined(element("h4", title), element("div", *map(self._figure, shown), class_="panels"))

    def _figure(self, shown: Shown) -> Markup:
        point, item = shown.point, shown.item
        if point is None:
            name, said = "original", "what all of them were given"
        else:
            value = item.metrics.get(self.metric)
            text = "not defined" if value is None else f"{value:,.{self.what['digits']}f} {self.what['unit']}".rstrip()
            name = point.label
            said = f"{self.what['label']} {text}; {item.bytes:,.0f} bytes"
        try:
            panel = self.panel(shown, f"{item.source}, {name}")
        except (ZooError, OSError) as error:
            panel = element("p", f"Cannot be shown: {error}", class_="lost")
        return element("figure", panel, element("figcaption", element("b", name), said))

    def _rate(self, point: Point) -> str:
        return f"{rate_text(point.rate)} {self.results.rate_unit}"

    # Signals

    def _load(self, source: str) -> Signal:
        return self.preprocessing.load(Path(self.results.data["folder"]) / source)

    def _values(self, shown: Shown) -> Tensor:
        """Without the axis of the batch."""
        original = self.original(shown.item.source)
        if shown.point is None:
            return original.values[0]
        return self.preprocessing.read(self.folder / shown.item.reconstruction, original)[0]

    # Panels

    def _picture(self, shown: Shown, title: str) -> Markup:
        picture = Image.fromarray(to_pixels(self._values(shown)))
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        return picture_element(picture, title)

    def _stills(self, shown: Shown, title: str) -> Markup:
        video = self._values(shown)
        frames = [round((index + 0.5) * video.shape[1] / STILLS - 0.5) for index in range(STILLS)]
        frames = sorted({min(max(frame, 0), video.shape[1] - 1) for frame in frames})
        stills = [Image.fromarray(to_pixels(video[:, frame])) for frame in frames]
        for still in stills:
            still.thumbnail((STILL_SIDE, STILL_SIDE), Image.Resampling.LANCZOS)
        width, height = stills[0].size
        row = Image.new("RGB", (width * len(stills) + 4 * (len(stills) - 1), height), "#808080")
        for number, still in enumerate(stills):
            row.paste(still, (number * (width + 4), 0))
        numbers = ", ".join(str(frame) for frame in frames)
        return picture_element(row, f"{title}: frames {numbers} of {video.shape[1]}", png_bytes=0)

    def _sound(self, shown: Shown, title: str) -> Markup:
        rate = self.preprocessing.sample_rate
        sound = self._values(shown)[:, : round(SECONDS * rate)]
        reference = self.original(shown.item.source).values[0][:1, : round(SECONDS * rate)]
        loudest = float(_level(reference).max())
        picture = spectrogram(_level(sound[:1]) - loudest)
        told = f"Spectrogram of {title}: 0 to {rate / 2000:g} kHz, {sound.shape[1] / rate:.1f} seconds"
        image = picture_element(picture, told, png_bytes=math.inf)
        content, media_type = compressed_sound(sound, rate)
        player = element(
            "audio", controls=True, preload="metadata", src=data_uri(content, media_type), aria_label=f"Play {title}"
        )
        return joined(image, player)

    def _traces(self, shown: Shown, title: str) -> Markup:
        original, moved = superposed(self.original(shown.item.source).values[0], self._values(shown))
        color = self.palette.color(shown.point.family)
        return traces_plot([(original, "var(--ghost)"), (moved, color)], f"CA traces of {title}, on the original's")


def _item(point: Point, source: str) -> Item | None:
    return next((item for item in point.items if item.source == source), None)


def picture_element(picture: Image.Image, alt: str, *, png_bytes: float = PNG_BYTES) -> Markup:
    """A picture as PNG, or as JPEG where that takes more than `png_bytes`."""
    encoded, media_type = io.BytesIO(), "image/png"
    picture.save(encoded, "PNG", optimize=True)
    if len(encoded.getvalue()) > png_bytes:
        encoded, media_type = io.BytesIO(), "image/jpeg"
        picture.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    width, height = picture.size
    source = data_uri(encoded.getvalue(), media_type)
    return element("img", src=source, alt=alt, width=width, height=height)


def compressed_sound(sound: Tensor, sample_rate: int) -> tuple[bytes, str]:
    """Float `[channels, samples]` to FLAC (16 bits), or to MP3 where that is too large, and its media type."""
    import soundfile

    samples = sound.clamp(-1, 1).T.numpy()
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, "PCM_16", format="FLAC", compression_level=1.0)
    if len(encoded.getvalue()) <= FLAC_BYTES or sample_rate > 48000 or sound.shape[0] > 2:
        return encoded.getvalue(), "audio/flac"
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, "MPEG_LAYER_III", format="MP3", compression_level=0.0)
    return encoded.getvalue(), "audio/mpeg"


def _level(sound: Tensor, size: int = 1024) -> Tensor:
    """dB of `[1, samples]`, `[size / 2 + 1, frames]`, about as many frames as the picture has columns."""
    hop = max(64, sound.shape[1] // SPECTROGRAM_SIZE[0])
    window = torch.hann_window(size)
    spectrum = torch.stft(sound[0], size, hop, window=window, pad_mode="constant", return_complex=True)
    return 20 * spectrum.abs().clamp(min=1e-8).log10()


def spectrogram(level: Tensor) -> Image.Image:
    """dB below the loudest, `[bands, frames]`, as a picture in 256 colours."""
    from matplotlib import colormaps

    share = (level / DYNAMIC_RANGE + 1).clamp(0, 1).flip(0)
    picture = Image.fromarray((share * 255).round().to(torch.uint8).numpy())
    picture = picture.resize(SPECTROGRAM_SIZE, Image.Resampling.BILINEAR)
    picture = Image.fromarray(np.asarray(picture) // 4 * 4).convert("L")  # 64 steps of 1.25 dB: half the bytes
    colors = (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    picture.putpalette(colors.tobytes())
    return picture


def superposed(original: Tensor, reconstruction: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """CA atoms `[residues, 3]` of both, the second turned and moved onto the first (Kabsch), by biotite."""
    from biotite.structure import superimpose

    fixed, mobile = original[:, ALPHA].double().numpy(), reconstruction[:, ALPHA].double().numpy()
    known = np.isfinite(fixed + mobile).all(axis=1)
    if known.sum() < 3:
        return fixed, mobile
    _, transform = superimpose(fixed[known], mobile[known])
    moved = np.full_like(mobile, np.nan)
    present = np.isfinite(mobile).all(axis=1)
    moved[present] = transform.apply(mobile[present])
    return fixed, moved
