"""The page on which an original and its reconstruction are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.metrics import METRICS, psnr
from zoo.pictures import pages
from zoo.pictures.pages import Panel
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode import Figures, Reconstruction

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_comparison(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    """Draw original and reconstruction, or images from more and more tokens if the first few can be decoded alone."""
    panels = [Panel("original", result.original[0])]
    if tokenizer.spec.tail_drop:
        panels += partial_reconstructions(tokenizer, result)
    else:
        panels.append(Panel("reconstruction", result.reconstruction[0]))
    return pages.image_page(title, figures_text(result.figures, tokenizer.spec), panels)


def partial_reconstructions(tokenizer: Tokenizer, result: Reconstruction) -> list[Panel]:
    """Return the images that the first 1, 4, 16, ... and all tokens decode to, with the PSNR of each."""
    num_tokens = result.codes.shape[2]
    counts = [4**power for power in range(num_tokens) if 4**power < num_tokens] + [num_tokens]
    panels = []
    for count in counts:
        image = tokenizer.decode(result.codes[..., :count]).float().cpu()
        note = f"PSNR {float(psnr(image, result.original)):.2f} dB"
        panels.append(Panel(f"{count} token{'s' if count > 1 else ''}", image[0], note))
    return panels


def audio_comparison(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    spec = tokenizer.spec
    assert spec.sample_rate is not None  # of an audio tokenizer
    sounds = {"original": result.original[0], "reconstruction": result.reconstruction[0]}
    return pages.sound_page(title, figures_text(result.figures, spec), sounds, spec.sample_rate)


def video_comparison(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    clips = {"original": result.original[0], "reconstruction": result.reconstruction[0]}
    return pages.clip_page(title, figures_text(result.figures, tokenizer.spec), clips)


def structure_comparison(title: str, tokenizer: Tokenizer, result: Reconstruction) -> Figure:
    subtitle = figures_text(result.figures, tokenizer.spec)
    return pages.structure_page(title, subtitle, result.original[0], result.reconstruction[0])


COMPARISONS: dict[str, Callable[[str, Tokenizer, Reconstruction], Figure]] = {
    "image": image_comparison,
    "audio": audio_comparison,
    "video": video_comparison,
    "structure": structure_comparison,
}


def figures_text(figures: Figures, spec: TokenizerSpec) -> str:
    """Return a line that says what the codes cost and how close the reconstruction is."""
    parts = [
        f"{figures.tokens:,} tokens",
        f"{figures.bits:,.0f} bits",
        f"1/{figures.compression_ratio:.0f} of the size",
    ]
    for name, value in figures.quality.items():
        metric = METRICS[spec.modality][name]
        parts.append(f"{metric.label} {metric.text(value)} {metric.unit}".rstrip())
    return "   ".join(parts)
