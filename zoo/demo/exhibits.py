"""What the demo shows of one input through one tokenizer: the whole, its first few codes, and a classical codec."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from zoo import modalities
from zoo.bench.baselines import Codec, classical_codecs
from zoo.bench.signals import Preprocessing
from zoo.metrics import METRICS, Metric
from zoo.pictures.structures import superposed
from zoo.spec import PartialCodes, TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode import Figures, Reconstruction

# The classical codec of a modality that is shown at the setting whose size is nearest.
RIVALS = {"image": "JPEG", "audio": "Opus", "video": "H.264"}
COARSEST_LAST = ("H.264",)  # of its settings; of the other codecs, the coarsest is the first
# How a reconstruction is moved onto the original before it is shown and written, where it can lie anywhere.
ALIGNMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"structure": superposed}


@dataclass(frozen=True, eq=False)
class Part:
    """A reconstruction.

    label: what it was decoded from. signal: float32 without batch axis. bytes: size of the codes, or of the codec's
    data. quality: the first metric of the modality in words.
    """

    label: str
    signal: Tensor
    bytes: float
    quality: str


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One input through one tokenizer.

    input: name of the input. spec, figures: of the tokenizer and of the result. original: float32 without batch axis.
    frame_rate: frames per second of video. codes: `[num_codebooks, *grid]`. parts: what the first few codes decode to,
    and all of them last. rival: the classical codec; None where there is none. letters: one for each code, where
    another tokenizer writes the same signal in letters.
    """

    input: str
    spec: TokenizerSpec
    figures: Figures
    original: Tensor
    frame_rate: float | None
    codes: Tensor
    parts: tuple[Part, ...]
    rival: Part | None
    letters: str = ""


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
    labels = {f"{count} {what if count > 1 else what.removesuffix('s')}": count for count in fewer}
    return labels | {f"all {partial.default} {what}": partial.default}


def powers_of_4(end: int) -> list[int]:
    """Return 1, 4, 16, ... up to `end`."""
    return [4**power for power in range(end.bit_length()) if 4**power <= end]


def exhibit(
    tokenizer: Tokenizer, name: str, result: Reconstruction, frame_rate: float | None, letters: str = ""
) -> Exhibit:
    """Collect what is shown of a result of `tokenizer`; the arguments are fields of `Exhibit`."""
    spec, original = tokenizer.spec, result.original

    def part(label: str, codes: Tensor, signal: Tensor, quality: str) -> Part:
        num_bytes = codes[0, 0].numel() * spec.bits_of(codes.shape[1]) / 8
        aligned = ALIGNMENTS[spec.modality](signal[0], original[0])[None] if spec.modality in ALIGNMENTS else signal
        return Part(label, aligned[0], num_bytes, quality)

    partial = spec.partial_of(tokenizer.size_of(original))
    *fewer, (label, _) = (partial_counts(partial) or {"reconstruction": 0}).items()
    parts = []
    for few_label, count in fewer:
        assert partial is not None  # or there are no fewer
        codes = partial.first(result.codes, count)
        signal = tokenizer.restore(codes, original).float().cpu()
        parts.append(part(few_label, codes, signal, quality_text(signal, original, spec)))
    metric = first_metric(spec)
    whole_quality = metric.phrase(result.figures.quality[metric.name])
    parts.append(part(label, result.codes, result.reconstruction, whole_quality))
    return Exhibit(
        name,
        spec,
        result.figures,
        original[0],
        frame_rate,
        result.codes[0],
        tuple(parts),
        rival(original, result.figures.bits / 8, spec),
        letters,
    )


def first_metric(spec: TokenizerSpec) -> Metric:
    return METRICS[spec.modality][modalities.get(spec.modality).quality[0]]


def quality_text(reconstruction: Tensor, original: Tensor, spec: TokenizerSpec) -> str:
    """Return the first metric of the modality in words."""
    metric = first_metric(spec)
    assert metric.per_item is not None  # of those that are shown for single signals
    value = float(metric.per_item(reconstruction, original, spec))
    return metric.phrase(value if math.isfinite(value) else None)


def rival(original: Tensor, num_bytes: float, spec: TokenizerSpec) -> Part | None:
    """Return a batch of one through the modality's classical codec, at the setting whose size is nearest.

    None where there is no such codec for the modality, or in the libraries that are installed.
    """
    tried: list[tuple[Codec, float, Any]] = []
    for codec in settings_of_rival(spec.modality, spec.sample_rate, spec.channels):
        tried.append((codec, *codec.compress(original)))
        if tried[-1][1] >= num_bytes:  # the next settings only take more
            break
    if not tried:
        return None
    codec, size, payload = min(tried, key=lambda found: abs(math.log(found[1] / num_bytes)))
    restored = codec.restore(payload, original)
    return Part(codec.label, restored[0], size, quality_text(restored, original, spec))


@cache
def settings_of_rival(modality: str, sample_rate: int | None, channels: int) -> list[Codec]:
    """Return the settings of the modality's classical codec from the coarsest to the finest."""
    if modality not in RIVALS:
        return []
    of_audio: dict[str, Any] = {} if sample_rate is None else {"sample_rate": sample_rate, "channels": channels}
    codecs, _ = classical_codecs(Preprocessing(modality=modality, **of_audio))
    found = [codec for codec in codecs if codec.method == RIVALS[modality]]
    return found[::-1] if RIVALS[modality] in COARSEST_LAST else found
