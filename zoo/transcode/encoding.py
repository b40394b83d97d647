"""Encoding of signals in files and folders to code files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo import loading, modalities
from zoo.codes import save_codes
from zoo.errors import InputError, ZooError
from zoo.tokenizer import Tokenizer
from zoo.transcode.paths import CODE_SUFFIXES, Outputs, find_sources
from zoo.transcode.results import FileResult, FileResults


def encode_files(
    tokenizer: Tokenizer | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    format: Literal["npz", "safetensors"] = "npz",
    resolution: int | None = None,
    crop: int | None = None,
    seconds: float | None = None,
    resample: bool | None = None,
    chain: str | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> FileResults:
    """Encode signals to code files; video is read and encoded window by window, in constant memory.

    Args:
        tokenizer: the tokenizer, or its name as `zoo.load` takes it.
        inputs: files, and folders whose files of the tokenizer's modality are taken, with their subfolders.
        out: folder, in which the files of a folder keep their relative paths; or, for one input file, the code file.
        format: format of the code files in a folder.
        resolution, crop, seconds, resample, chain: as in `Tokenizer.preprocess`.
        batch_size: number of successive signals of one size that are encoded at once; videos are encoded one by one.
        overwrite: whether existing code files are replaced.

    Raises:
        InputError: a `batch_size` below 1, an option of another modality, or several inputs for one file.
        MediaError: an input that does not exist, or a folder without files.
    """
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    tokenizer = loaded(tokenizer)
    options = tokenizer.file_options(resolution=resolution, crop=crop, seconds=seconds, resample=resample, chain=chain)
    sources = find_sources(inputs, lambda path: modalities.media_files(path, tokenizer.spec.modality))
    outputs = Outputs(sources, Path(out), CODE_SUFFIXES, overwrite)

    def results() -> Iterator[FileResult]:
        batch: list[tuple[Path, Path, Tensor]] = []
        for source, relative in sources:
            try:
                target = outputs.claim(source, relative, f".{format}")
                if tokenizer.modality.window_options:
                    yield encode_windows(tokenizer, source, target, overwrite, options)
                    continue
                signal = tokenizer.modality.load(source, tokenizer.spec, **options).values[None]
            except ZooError as error:
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
                yield FileResult(source, error=error)
                continue
            if len(batch) == batch_size or (batch and signal.shape != batch[0][2].shape):
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
            batch.append((source, target, signal))
        yield from encode_batch(tokenizer, batch, overwrite)

    return FileResults(len(sources), results())


def loaded(tokenizer: Tokenizer | str | Path) -> Tokenizer:
    """Return the tokenizer, loaded if it is a name."""
    return tokenizer if isinstance(tokenizer, Tokenizer) else loading.load(tokenizer)


def encode_batch(tokenizer: Tokenizer, batch: list[tuple[Path, Path, Tensor]], overwrite: bool) -> Iterator[FileResult]:
    """Encode signals of one size, with their source and target; one that is refused does not stop the others."""
    if not batch:
        return
    try:
        codes = tokenizer.encode(torch.cat([signal for _, _, signal in batch]))
    except ZooError as error:
        if len(batch) == 1:
            yield FileResult(batch[0][0], error=error)
            return
        for single in batch:
            yield from encode_batch(tokenizer, [single], overwrite)
        return
    for (source, target, signal), item in zip(batch, codes.split(1), strict=True):
        try:
            save(tokenizer, target, item, tokenizer.size_of(signal), None, overwrite)
            yield FileResult(source, target, tuple(item.shape[1:]))
        except ZooError as error:
            yield FileResult(source, error=error)


def encode_windows(
    tokenizer: Tokenizer, source: Path, target: Path, overwrite: bool, options: dict[str, Any]
) -> FileResult:
    """Encode a file window by window."""
    codes, length, frame_rate = [], 0, None
    sides: list[int] = []
    for window in tokenizer.modality.stream(source, tokenizer.spec, **options):
        codes.append(tokenizer.encode(window.values[None]).cpu())
        first, *sides = tokenizer.size_of(window.values[None])
        length, frame_rate = length + first, window.frame_rate
    joined = torch.cat(codes, dim=2)
    save(tokenizer, target, joined, (length, *sides), frame_rate, overwrite)
    return FileResult(source, target, tuple(joined.shape[1:]))


def save(
    tokenizer: Tokenizer,
    target: Path,
    codes: Tensor,
    size: tuple[int, ...],
    frame_rate: float | None,
    overwrite: bool,
) -> None:
    """Write the codes of one signal with everything that is needed to decode them."""
    save_codes(
        target,
        codes,
        name=tokenizer.spec.name,
        codebook_sizes=tokenizer.spec.codebook_sizes,
        size=size,
        frame_rate=frame_rate,
        overwrite=overwrite,
    )
