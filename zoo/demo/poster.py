"""The page's summary: one input of each modality, its codes and its reconstruction, as tiles and as one image."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo import modalities
from zoo.demo.exhibits import Exhibit
from zoo.pictures.codes import code_image
from zoo.pictures.images import to_image
from zoo.pictures.spectrograms import spectrogram
from zoo.pictures.structures import ca_atoms, trace_image

SIDE, GAP, MARGIN = 184, 10, 24  # pixels
COLUMNS, LINE = 2, 22
INK, SOFT = "#16181d", "#5a606b"
LINE_LENGTH = 118  # characters


@dataclass(frozen=True, eq=False)
class Summary:
    """A result in short.

    input: name of the input. quality: its first metric. title, caption: what it is, and what it cost. tiles: original,
    codes and reconstruction, squares of `SIDE` pixels, by label.
    """

    input: str
    quality: float | None
    title: str
    caption: str
    tiles: dict[str, Image.Image]


def summary(shown: Exhibit) -> Summary:
    """Draw the tiles of a result and write its caption."""
    spec, figures = shown.spec, shown.figures
    draw, whole = TILES[spec.modality], shown.parts[-1]
    raw = figures.bits * figures.compression_ratio / 8
    return Summary(
        input=shown.input,
        quality=figures.quality[modalities.get(spec.modality).quality[0]],
        title=f"{shown.input}: {raw:,.0f} bytes in {figures.tokens:,} tokens",
        caption=f"{spec.name}: {figures.bits / 8:,.0f} bytes, {whole.quality}",
        tiles={
            f"{shown.input}, original": draw(shown.original, shown.original),
            f"{shown.input}, codes": squared(code_image(shown.codes)),
            f"{shown.input}, reconstruction": draw(whole.signal, shown.original),
        },
    )


def squared(codes: Image.Image) -> Image.Image:
    """Enlarge an image of codes to the width or height of a white tile, in its middle."""
    scale = -(-SIDE // max(codes.size))
    large = codes.resize((codes.width * scale, codes.height * scale), Image.Resampling.NEAREST)
    large.thumbnail((SIDE, SIDE))
    tile = Image.new("RGBA", (SIDE, SIDE), "white")
    tile.alpha_composite(large, ((SIDE - large.width) // 2, (SIDE - large.height) // 2))
    return tile.convert("RGB")


def image_tile(image: Tensor, original: Tensor) -> Image.Image:
    return to_image(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def audio_tile(sound: Tensor, original: Tensor) -> Image.Image:
    return spectrogram(sound, original, (SIDE, SIDE)).convert("RGB")


def video_tile(clip: Tensor, original: Tensor) -> Image.Image:
    return image_tile(clip[:, clip.shape[1] // 2], original)


def structure_tile(structure: Tensor, original: Tensor) -> Image.Image:
    return trace_image([ca_atoms(original), ca_atoms(structure)], SIDE)


TILES: dict[str, Callable[[Tensor, Tensor], Image.Image]] = {
    "image": image_tile,
    "audio": audio_tile,
    "video": video_tile,
    "structure": structure_tile,
}


def poster(text: str, summaries: Sequence[Summary]) -> Image.Image:
    """Draw summaries in two columns below a text."""
    lines = textwrap.wrap(text, LINE_LENGTH)
    cell_width, cell_height = 3 * SIDE + 2 * GAP, SIDE + 2 * LINE + 2 * GAP
    rows = -(-len(summaries) // COLUMNS)
    top = MARGIN + 2 * LINE + len(lines) * LINE + GAP
    size = 2 * MARGIN + COLUMNS * cell_width + (COLUMNS - 1) * MARGIN, top + rows * (cell_height + GAP) + GAP
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN - 4), "Signals to integers, and back", INK, font("DejaVuSans-Bold", 26))
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + (2 + number) * LINE - 4), line, SOFT, font("DejaVuSans", 15))
    for number, shown in enumerate(summaries):
        left = MARGIN + number % COLUMNS * (cell_width + MARGIN)
        y = top + number // COLUMNS * (cell_height + GAP)
        for column, tile in enumerate(shown.tiles.values()):
            image.paste(tile, (left + column * (SIDE + GAP), y))
        draw.text((left, y + SIDE + 6), shown.title, INK, font("DejaVuSans-Bold", 14))
        draw.text((left, y + SIDE + 6 + LINE), shown.caption, SOFT, font("DejaVuSans", 14))
    return image


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the fonts that matplotlib installs."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)
