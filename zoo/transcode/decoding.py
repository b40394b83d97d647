"""Decoding of code files, and folders of them, to signals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import loading, modalities, registry
from zoo.codes import CodeFile, load_codes
from zoo.errors import InputError, as_zoo_error
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode.drawing import check_seed, drawing_options
from zoo.transcode.paths import Outputs, check_made_after, code_files, find_sources
from zoo.transcode.results import FileResult, FileResults


def decode_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> FileResults:
    """Decode code files to signals: PNG, WAV, MP4 or PDB, or, for one file, the format of the suffix of `out`.

    An output that exists and is newer than its code file is kept and counted as done.

    Args:
        inputs: code files, and folders of them.
        out: as in `encode_files`.
        name: the tokenizer, as `zoo.load` takes it; codes of another one are an error. None: the one that each file
            names.
        device, dtype: device and data type of the weights.
        seed: of a decoder that draws noise, anew for each file; None: the noise differs from run to run.
        overwrite: whether existing files are replaced.

    Raises:
        As `encode_files`, and as `zoo.load` for `name`.
    """
    check_seed(seed)
    sources = find_sources(inputs, code_files)
    suffixes = tuple(suffix for modality in modalities.every() for suffix in modality.suffixes)
    outputs = Outputs(sources, Path(out), suffixes)
    decoders = Decoders(name, device, dtype)

    def results() -> Iterator[FileResult]:
        for source, relative in sources:
            try:
                file = load_codes(source)
                if len(file.codes) > 1 or file.lengths is not None:
                    raise InputError(f"{source}: holds a batch, which Tokenizer.decode takes; expected one signal")
                spec = decoders.spec(file)
                file.check(spec)
                target = outputs.claim(source, relative, modalities.get(spec.modality).signal_suffix)
                done_before = target.exists() and not overwrite
                if done_before:
                    check_made_after(target, source)
                else:
                    decode_file(decoders.load(file), file, target, overwrite, seed)
                yield FileResult(source, target, tuple(file.codes.shape[1:]), done_before=done_before)
            except Exception as error:
                yield FileResult(source, error=as_zoo_error(error))

    return FileResults([source for source, _ in sources], results())


class Decoders:
    """The tokenizers of code files, of which the last is kept; what cannot be loaded is not tried again.

    Args:
        name: the only tokenizer that is used; None: the one that each file names.
    """

    def __init__(self, name: str | Path | None, device: str | torch.device, dtype: torch.dtype | None):
        self._device, self._dtype = device, dtype
        self._only = None if name is None else loading.load(name, device=device, dtype=dtype)
        self._last: Tokenizer | None = None
        self._errors: dict[str, Exception] = {}

    def spec(self, file: CodeFile) -> TokenizerSpec:
        """Return the spec of a file's tokenizer, without its weights."""
        return registry.info(file.name).spec if self._only is None else self._only.spec

    def load(self, file: CodeFile) -> Tokenizer:
        """Return a file's tokenizer; raises as `zoo.load`."""
        if self._only is not None:
            return self._only
        if file.name in self._errors:
            raise self._errors[file.name]
        if self._last is None or self._last.spec.name != file.name:
            self._last = None  # one at a time in memory
            try:
                self._last = loading.load(file.name, device=self._device, dtype=self._dtype)
            except Exception as error:
                self._errors[file.name] = error
                raise
        return self._last


def decode_file(tokenizer: Tokenizer, file: CodeFile, target: Path, overwrite: bool, seed: int | None) -> None:
    """Decode one code file to a file, window by window if the tokenizer has windows."""
    spec, modality = tokenizer.spec, tokenizer.modality
    options = drawing_options(tokenizer, seed)
    if not modality.window_options:
        signal = tokenizer.decode(file.codes, size=file.size, **options)[0].float().cpu()
        modality.write(target, signal, spec, overwrite=overwrite)
        return
    if file.frame_rate is None or file.size is None:
        raise InputError("expected codes of a video with their frame rate and size, as `zoo encode` writes them")
    window = modality.window(spec, {}) or file.size[0]
    modality.write(
        target,
        decoded_windows(tokenizer, file.codes, file.size, window, options),
        spec,
        frame_rate=file.frame_rate,
        pixel_aspect=file.pixel_aspect,
        overwrite=overwrite,
    )


def decoded_windows(
    tokenizer: Tokenizer, codes: Tensor, size: tuple[int, ...], window: int, options: dict[str, Any]
) -> Iterator[Tensor]:
    """Yield the windows of a signal of `size`, without batch axis, each decoded when it is needed."""
    length, *sides = size
    for number, part in enumerate(codes.split(tokenizer.spec.code_length(window, window), dim=2)):
        part_size = (min(window, length - number * window), *sides)
        yield tokenizer.decode(part, size=part_size, **options)[0].float().cpu()
