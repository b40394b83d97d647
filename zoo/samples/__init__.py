"""Inputs that ship with zoo: pictures, speech, a clip and a protein made for it, and matplotlib's photograph."""

from pathlib import Path

from PIL import Image

from zoo.errors import InputError

FOLDER = Path(__file__).parent
SUFFIX = {"image": ".png", "audio": ".flac", "video": ".mkv", "structure": ".pdb"}
PHOTOGRAPH_CROP = (80, 0, 464, 384)  # head and shoulders of the 512×600 photograph


def samples(modality: str) -> dict[str, Path | Image.Image]:
    """The samples of a modality by name, each as `Tokenizer.preprocess` takes it.

    Pictures are 256×256; speech is mono at 24 kHz, three to four seconds; the clip is 33 frames of 128×128; the
    protein a chain of 59 residues.

    Raises:
        InputError: a modality without samples.
    """
    if modality not in SUFFIX:
        raise InputError(f"zoo ships no samples of {modality!r}; it has {', '.join(SUFFIX)}")
    files = {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX[modality]}"))}
    return {"hopper": photograph(), **files} if modality == "image" else files


def photograph() -> Image.Image:
    """Rear Admiral Grace Hopper, 256×256: a U.S. Navy photograph in the public domain, from matplotlib's samples."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB")
    return image.crop(PHOTOGRAPH_CROP).resize((256, 256), Image.Resampling.BICUBIC)
