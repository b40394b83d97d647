"""Signals and files encoded and decoded again, with figures of what that costs and what is lost."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import modalities
from zoo.errors import as_zoo_error
from zoo.metrics import METRICS
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode.drawing import check_seed, drawing_options
from zoo.transcode.encoding import loaded
from zoo.transcode.paths import check_made_after
from zoo.transcode.results import Figures, FileResult, FileResults, Reconstruction
from zoo.transcode.tasks import Task, Tasks


def reconstruct_files(
    tokenizer: Tokenizer | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    resolution: int | None = None,
    crop: int | None = None,
    start: float | None = None,
    seconds: float | None = None,
    resample: bool | None = None,
    chain: str | None = None,
    all_chains: bool = False,
    num_codebooks: int | None = None,
    num_tokens: int | None = None,
    num_scales: int | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> FileResults:
    """Encode and decode signals, and measure cost and loss; arguments and files are as in `encode_files`.

    An output that exists and is newer than its source is kept and counted as done. It does not record the tokenizer and
    the options that it was made with, so use a different folder for each choice of them.

    Args:
        seed: as in `decode_files`.

    Raises:
        As `encode_files`; InputError for a system that only encodes, or a seed for a decoder that draws nothing.
    """
    tokenizer = loaded(tokenizer)
    tokenizer.check_decodes()
    check_seed(seed)
    drawing_options(tokenizer, seed)  # an error before any work
    modality = tokenizer.modality
    tasks = Tasks(
        tokenizer,
        inputs,
        out,
        suffix=modality.signal_suffix,
        file_suffixes=modality.suffixes,
        given={
            "resolution": resolution,
            "crop": crop,
            "start": start,
            "seconds": seconds,
            "resample": resample,
            "chain": chain,
        },
        encode_options=tokenizer.partial_options(
            num_codebooks=num_codebooks, num_tokens=num_tokens, num_scales=num_scales
        ),
        all_chains=all_chains,
        overwrite=overwrite,
        codes_shape_of=lambda task: check_made_after(task.target, task.source),
    )

    def results() -> Iterator[FileResult]:
        for task in tasks:
            if isinstance(task, FileResult):
                yield task
                continue
            try:
                yield reconstruct_file(tokenizer, task, overwrite, seed)
            except Exception as error:
                yield FileResult(task.source, error=as_zoo_error(error))

    return FileResults(tasks.sources, results())


def reconstruct_file(tokenizer: Tokenizer, task: Task, overwrite: bool, seed: int | None) -> FileResult:
    """Encode and decode a file, window by window if the tokenizer has windows."""
    spec, modality = tokenizer.spec, tokenizer.modality
    originals = modality.stream(task.source, spec, **task.options)
    first = next(originals)
    drawing = drawing_options(tokenizer, seed)
    shapes: list[tuple[int, ...]] = []
    figures: list[Figures] = []
    lengths: list[int] = []

    def windows() -> Iterator[Tensor]:
        for original in itertools.chain([first], originals):
            result = reconstruct(tokenizer, original.values[None], drawing, **task.encode_options)
            shapes.append(tuple(result.codes.shape[1:]))
            figures.append(result.figures)
            lengths.append(tokenizer.size_of(result.original)[0])
            yield result.reconstruction[0]

    parts = windows()
    signal = parts if modality.window_options else next(parts)
    modality.write(
        task.target,
        signal,
        spec,
        frame_rate=first.frame_rate,
        pixel_aspect=first.pixel_aspect,
        overwrite=overwrite,
    )
    num_codebooks, _, *sides = shapes[0]
    codes_shape = (num_codebooks, sum(shape[1] for shape in shapes), *sides)
    return FileResult(task.source, task.target, codes_shape, joined(figures, lengths))


def joined(windows: Sequence[Figures], lengths: Sequence[int]) -> Figures:
    """Return the figures of a signal from those of its windows and the length of each."""
    if len(windows) == 1:
        return windows[0]
    bits = sum(window.bits for window in windows)
    quality: dict[str, float | None] = {}
    for name in windows[0].quality:
        values = [window.quality[name] for window in windows]
        known = [(value, length) for value, length in zip(values, lengths, strict=True) if value is not None]
        whole = len(known) == len(values)
        quality[name] = sum(value * length for value, length in known) / sum(lengths) if whole else None
    return Figures(
        tokens=sum(window.tokens for window in windows),
        bits=bits,
        compression_ratio=sum(window.compression_ratio * window.bits for window in windows) / bits,
        quality=quality,
        seconds=sum(window.seconds for window in windows),
    )


def reconstruct(
    tokenizer: Tokenizer, signal: Tensor, decode_options: Mapping[str, Any] | None = None, **options: Any
) -> Reconstruction:
    """Encode and decode one signal; a video is one window.

    Args:
        signal: a batch of one, as `preprocess` returns it.
        decode_options: those of `Tokenizer.decode`. options: those of `Tokenizer.encode`.

    Raises:
        InputError: as `Tokenizer.encode`.
    """
    start = time.perf_counter()
    codes = tokenizer.encode(signal, **options)
    decoded = tokenizer.restore(codes, signal, **(decode_options or {}))
    original = tokenizer.modality.target(signal, tokenizer.spec).float().cpu()
    reconstruction = decoded.float().cpu()
    seconds = time.perf_counter() - start
    bits = codes[0, 0].numel() * tokenizer.spec.bits_of(codes.shape[1])
    return Reconstruction(
        original,
        codes.cpu(),
        reconstruction,
        Figures(
            tokens=codes.numel(),
            bits=bits,
            compression_ratio=tokenizer.modality.raw_bits * int(signal.isfinite().sum()) / bits,
            quality=quality(reconstruction, original, tokenizer.spec),
            seconds=seconds,
        ),
    )


def quality(reconstruction: Tensor, original: Tensor, spec: TokenizerSpec) -> dict[str, float | None]:
    """Return the metrics of `Figures.quality` for one signal; None for a metric without a finite value."""
    metrics = {name: METRICS[spec.modality][name] for name in modalities.get(spec.modality).quality}
    values = {
        name: float(metric.per_item(reconstruction, original, spec))
        for name, metric in metrics.items()
        if metric.per_item is not None
    }
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
