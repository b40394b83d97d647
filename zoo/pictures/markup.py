"""HTML and SVG elements whose text is escaped, and images inside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

VOID = ("br", "img", "meta")
PNG_BYTES = 200_000  # an image that takes more than this as PNG becomes a JPEG
JPEG_QUALITY = 92


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def element(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """Write an element.

    Args:
        name: name of the element.
        children: `Markup`, or text that is escaped; None is left out.
        attributes: values by name, which are escaped too. `class_` and `for_` stand for `class` and `for`, and `_` in a
            name for `-`. True is an attribute without a value; None and False leave it out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Markup:
    """Write children one after another; text that is not `Markup` is escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    )


def data_uri(content: bytes, media_type: str) -> str:
    """Return a URI that holds the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def image_element(image: Image.Image, alt: str, *, png_bytes: float = PNG_BYTES) -> Markup:
    """Write an image that is held by the page itself.

    Args:
        image: written as PNG, or as JPEG where that takes more than `png_bytes`.
        alt: what it shows, for readers who cannot see it.
        png_bytes: 0 always gives a JPEG, infinity a PNG.
    """
    encoded, media_type = io.BytesIO(), "image/png"
    image.save(encoded, "PNG")
    if len(encoded.getvalue()) > png_bytes:
        encoded, media_type = io.BytesIO(), "image/jpeg"
        image.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _img(encoded.getvalue(), media_type, alt, image.size)


def clip_element(frames: Sequence[Image.Image], frame_rate: float, alt: str) -> Markup:
    """Write a clip that repeats without end, as an animated WebP, which every browser plays.

    Args:
        frames: images of one size.
        frame_rate: frames per second.
        alt: what the clip shows, for readers who cannot see it.
    """
    encoded = io.BytesIO()
    duration = max(1, round(1000 / frame_rate))
    frames[0].save(
        encoded, "WEBP", save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=90, method=2
    )
    return _img(encoded.getvalue(), "image/webp", alt, frames[0].size)


def _img(content: bytes, media_type: str, alt: str, size: tuple[int, int]) -> Markup:
    width, height = size
    return element("img", src=data_uri(content, media_type), alt=alt, width=width, height=height)
