"""The page on which an original and its reconstruction are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.metrics import METRICS, psnr
from zoo.pictures import pages
from zoo.pictures.pages import Panel
from zoo.spec import PartialCodes, TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode import Figures, Reconstruction

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def partial_counts(partial: PartialCodes | None) -> dict[str, int]:
    """Return how many of the first codes the demo decodes alone, by label; empty if a signal needs all codes.

    Of tokens, they are 1, 4, 16, ... and all; of codebooks and scales, 1, 2, 4 and all that `encode` uses.
    """
    if partial is None:
        return {}
    fewer = [
        count
        for count in (powers_of_4(partial.default) if partial.option == "num_tokens" else (1, 2, 4))
        if count < partial.default
    ]
    what = partial.option.removeprefix("num_")
    return {f"{count} {what if count > 1 else what.removesuffix('s')}": count for count in (*fewer, partial.default)}


def powers_of_4(end: int) -> list[int]:
    """Return 1, 4, 16, ... up to `end`."""
    return [4**power for power in range(end.bit_length()) if 4**power <= end]


def partial_reconstructions(tokenizer: Tokenizer, result: Reconstruction) -> dict[str, Tensor]:
    """Return what all codes and the first few of them decode to, all last: float32 without batch axis, by label."""
    signals = {"reconstruction": result.reconstruction[0]}
    partial = tokenizer.spec.partial_of(tokenizer.size_of(result.original))
    if partial is not None:
        *fewer, (every, _) = partial_counts(partial).items()
        parts = {label: partial.first(result.codes, count) for label, count in fewer}
        signals = {label: tokenizer.restore(codes, result.original)[0].float().cpu() for label, codes in parts.items()}
        signals[every] = result.reconstruction[0]
    return signals


# Each draws the original and `signals`, what came of it, by label.


def image_comparison(title: str, spec: TokenizerSpec, result: Reconstruction, signals: Mapping[str, Tensor]) -> Figure:
    """Draw images in a row, with the PSNR of each where it has no place in the title."""
    panels = [Panel("original", result.original[0])]
    for label, image in signals.items():
        note = f"PSNR {float(psnr(image[None], result.original)):.2f} dB" if len(signals) > 1 else ""
        panels.append(Panel(label, image, note))
    return pages.image_page(title, figures_text(result.figures, spec), panels)


def audio_comparison(title: str, spec: TokenizerSpec, result: Reconstruction, signals: Mapping[str, Tensor]) -> Figure:
    assert spec.sample_rate is not None  # of an audio tokenizer
    sounds = {"original": result.original[0], **signals}
    return pages.sound_page(title, figures_text(result.figures, spec), sounds, spec.sample_rate)


def video_comparison(title: str, spec: TokenizerSpec, result: Reconstruction, signals: Mapping[str, Tensor]) -> Figure:
    clips = {"original": result.original[0], **signals}
    return pages.clip_page(title, figures_text(result.figures, spec), clips)


def structure_comparison(
    title: str, spec: TokenizerSpec, result: Reconstruction, signals: Mapping[str, Tensor]
) -> Figure:
    *_, reconstruction = signals.values()
    return pages.structure_page(title, figures_text(result.figures, spec), result.original[0], reconstruction)


COMPARISONS: dict[str, Callable[[str, TokenizerSpec, Reconstruction, Mapping[str, Tensor]], Figure]] = {
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
