"""Inputs that ship with zoo: images, speech, music and a clip made for it, a protein, a photograph from matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from zoo.errors import InputError

FOLDER = Path(__file__).parent
SUFFIX = {"image": ".png", "audio": ".flac", "video": ".mkv", "structure": ".pdb"}
PHOTOGRAPH_CROP = (80, 0, 464, 384)  # head and shoulders of the 512×600 photograph


def samples(modality: str) -> dict[str, Path | Image.Image]:
    """Return the samples of a modality by name, each as `Tokenizer.preprocess` takes it.

    Images have 256×256 pixels; sound is mono at 24 kHz, three to seven seconds long; the clip has 33 frames of
    128×128 pixels; the protein is a chain of 145 residues.

    Raises:
        InputError: a modality without samples.
    """
    if modality not in SUFFIX:
        raise InputError(f"zoo ships no samples of {modality!r}; it has {', '.join(SUFFIX)}")
    found: dict[str, Path | Image.Image] = {name: make() for name, make in IN_MEMORY.get(modality, {}).items()}
    return found | {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX[modality]}"))}


def photograph() -> Image.Image:
    """Rear Admiral Grace Hopper, 256×256: a U.S. Navy photograph in the public domain, from matplotlib's samples."""
    import matplotlib

    path = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    return photograph.crop(PHOTOGRAPH_CROP).resize((256, 256), Image.Resampling.BICUBIC)


IN_MEMORY: dict[str, dict[str, Callable[[], Image.Image]]] = {"image": {"hopper": photograph}}
