"""Encoding of signals in files and folders to code files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo import loading
from zoo.codes import load_codes, save_codes
from zoo.codes.files import CODE_SUFFIXES
from zoo.errors import InputError, MediaError, ZooError, as_zoo_error
from zoo.modalities import Signal
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode.paths import check_made_after
from zoo.transcode.results import FileResult, FileResults
from zoo.transcode.tasks import Task, Tasks


def encode_files(
    tokenizer: Tokenizer | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    format: Literal["npz", "safetensors"] = "npz",
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
    batch_size: int = 1,
    overwrite: bool = False,
) -> FileResults:
    """Encode signals to code files; video is read and encoded window by window, in constant memory, or whole.

    An existing code file is kept, and its signal is not encoded again, if it is newer than its source and states the
    same tokenizer, options and size of the source. Otherwise it is an error for this file. Weights are not compared.

    Args:
        tokenizer: the tokenizer, or its name as `zoo.load` takes it.
        inputs: files, and folders whose files of the tokenizer's modality are taken, with their subfolders.
        out: folder, in which a folder's files keep their relative paths, `name.npz` for `name.wav`, or
            `name.wav.npz` where another input is `name.flac`; or, for one input file, the code file.
        format: format of the code files in a folder.
        resolution, crop, start, seconds, resample, chain: as in `Tokenizer.preprocess`.
        all_chains: whether each chain of a structure file is encoded, to `name_A.npz` for chain A.
        num_codebooks, num_tokens, num_scales: as in `Tokenizer.encode`: how many of the first codes are kept.
        batch_size: number of successive signals of one size that are encoded at once; videos are encoded one by one.
        overwrite: whether existing code files are replaced.

    Raises:
        InputError: a `batch_size` below 1, an option that the tokenizer does not have, several inputs for one file, or
            a tokenizer whose codes need a codebook of their signal's own, for which a code file has no place.
        MediaError: an input that does not exist, or a folder without files.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size!r}")
    if f".{format}" not in CODE_SUFFIXES:
        raise InputError(f"expected format as npz or safetensors, got {format!r}")
    tokenizer = loaded(tokenizer)
    tokenizer.check_stands_alone()
    tasks = Tasks(
        tokenizer,
        inputs,
        out,
        suffix=f".{format}",
        file_suffixes=CODE_SUFFIXES,
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
        codes_shape_of=lambda task: codes_shape_of(task, tokenizer.spec),
    )

    def results() -> Iterator[FileResult]:
        batch: list[tuple[Task, Tensor]] = []
        for task in tasks:
            if isinstance(task, FileResult):
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
                yield task
                continue
            try:
                if tokenizer.modality.window_options:
                    yield encode_windows(tokenizer, task, overwrite)
                    continue
                signal = tokenizer.modality.load(task.source, tokenizer.spec, **task.options).values[None]
            except Exception as error:
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
                yield FileResult(task.source, error=as_zoo_error(error))
                continue
            if batch and signal.shape != batch[0][1].shape:
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
            batch.append((task, signal))
            if len(batch) == batch_size:
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
        yield from encode_batch(tokenizer, batch, overwrite)

    return FileResults(tasks.sources, results())


def codes_shape_of(task: Task, spec: TokenizerSpec) -> tuple[int, ...]:
    """Return the shape of the codes in the target of a task, if encoding would write the same again.

    Raises:
        MediaError: it would not.
    """
    try:
        file = load_codes(task.target)
        file.check(spec)
    except ZooError as error:
        raise MediaError(f"{task.target}: exists already; overwrite replaces it: {error}") from error
    for what, came, expected in (
        ("options", file.options, task.recorded),
        ("source_bytes", file.source_bytes, task.source.stat().st_size),
    ):
        if came != expected:
            raise MediaError(
                f"{task.target}: exists already, with {what} {'not stated' if came is None else came} "
                f"instead of {expected}; overwrite replaces it"
            )
    check_made_after(task.target, task.source)
    return tuple(file.codes.shape[1:])


def loaded(tokenizer: Tokenizer | str | Path) -> Tokenizer:
    """Return the tokenizer, loaded if it is a name."""
    return tokenizer if isinstance(tokenizer, Tokenizer) else loading.load(tokenizer)


def encode_batch(tokenizer: Tokenizer, batch: list[tuple[Task, Tensor]], overwrite: bool) -> Iterator[FileResult]:
    """Encode signals of one size; one that is refused does not stop the others."""
    if not batch:
        return
    try:
        codes = tokenizer.encode(torch.cat([signal for _, signal in batch]), **batch[0][0].encode_options)
    except Exception as error:
        if len(batch) == 1:
            yield FileResult(batch[0][0].source, error=as_zoo_error(error))
            return
        for single in batch:
            yield from encode_batch(tokenizer, [single], overwrite)
        return
    for (task, signal), item in zip(batch, codes.split(1), strict=True):
        try:
            yield save(tokenizer, task, item, tokenizer.size_of(signal), None, overwrite)
        except Exception as error:
            yield FileResult(task.source, error=as_zoo_error(error))


def encode_windows(tokenizer: Tokenizer, task: Task, overwrite: bool) -> FileResult:
    """Encode a file window by window, or as a whole if the tokenizer has no windows."""
    codes, length, window = [], 0, None
    sides: list[int] = []
    for window in tokenizer.modality.stream(task.source, tokenizer.spec, **task.options):
        codes.append(tokenizer.encode(window.values[None], **task.encode_options).cpu())
        first, *sides = tokenizer.size_of(window.values[None])
        length += first
    return save(tokenizer, task, torch.cat(codes, dim=2), (length, *sides), window, overwrite)


def save(
    tokenizer: Tokenizer, task: Task, codes: Tensor, size: tuple[int, ...], window: Signal | None, overwrite: bool
) -> FileResult:
    """Write the codes of one signal with everything that decoding and a later run need.

    window: one of its windows, where it has some.
    """
    save_codes(
        task.target,
        codes,
        name=tokenizer.spec.name,
        codebook_sizes=tokenizer.spec.codebook_sizes[: codes.shape[1]],
        size=size,
        frame_rate=None if window is None else window.frame_rate,
        pixel_aspect=None if window is None else window.pixel_aspect,
        options=task.recorded,
        source_bytes=task.source.stat().st_size,
        overwrite=overwrite,
    )
    return FileResult(task.source, task.target, tuple(codes.shape[1:]))
