"""Inputs that ship with zoo: two pictures and two sentences made for it, and matplotlib's sample photograph."""

from pathlib import Path

from PIL import Image

from zoo.errors import InputError

FOLDER = Path(__file__).parent
PHOTOGRAPH_CROP = (80, 0, 464, 384)  # head and shoulders of the 512×600 photograph


def samples(modality: str) -> dict[str, Path | Image.Image]:
    """The samples of a modality by name, each as `Tokenizer.preprocess` takes it.

    Pictures are 256×256; speech is mono at 24 kHz, three to four seconds.

    Raises:
        InputError: a modality without samples.
    """
    if modality == "audio":
        return {path.stem: path for path in sorted(FOLDER.glob("*.flac"))}
    if modality == "image":
        pictures = {path.stem: path for path in sorted(FOLDER.glob("*.png"))}
        return {"hopper": photograph(), **pictures}
    raise InputError(f"zoo ships no samples of {modality!r}; it has audio and image")


def photograph() -> Image.Image:
    """Rear Admiral Grace Hopper, 256×256: a U.S. Navy photograph in the public domain, from matplotlib's samples."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB")
    return image.crop(PHOTOGRAPH_CROP).resize((256, 256), Image.Resampling.BICUBIC)
