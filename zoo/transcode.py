"""Files and folders through a tokenizer: to codes, from codes, and there and back with the figures of the loss.

Each function checks what it is asked before it starts and returns `Reports`, which does the work as it is read: one
`Report` per file, so that a damaged file is told and the rest goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo import media, registry
from zoo.codes import load_codes, save_codes
from zoo.errors import InputError, MediaError, UnknownTokenizerError, ZooError
from zoo.tokenizer import Tokenizer, TokenizerSpec

CODE_SUFFIXES = (".npz", ".safetensors")
SIGNAL_SUFFIX = {"image": ".png", "audio": ".wav"}
RAW_BITS = {"image": 8, "audio": 16}  # a value's, in what the compression ratio is relative to


class Metric(NamedTuple):
    """How a figure of quality is shown."""

    label: str
    unit: str
    digits: int

    @property
    def column(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def value(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.{self.digits}f}"


METRICS = {
    "psnr": Metric("PSNR", "dB", 2),
    "ssim": Metric("SSIM", "", 3),
    "mel_distance": Metric("mel distance", "", 3),
    "stoi": Metric("STOI", "", 3),
}


@dataclass(frozen=True)
class Figures:
    """What a signal costs in codes and what they lose.

    compression_ratio: bits of the signal as 8-bit picture or 16-bit audio, per bit of the codes.
    quality: `psnr` (dB) and `ssim`, or `mel_distance` and `stoi`; None where it is not defined or infinite.
    seconds: of encoding and decoding.
    """

    tokens: int
    bits: float
    compression_ratio: float
    quality: dict[str, float | None]
    seconds: float


@dataclass(frozen=True)
class Reconstruction:
    """original, reconstruction: float32 `[1, channels, *size]` on the CPU. codes: `[1, num_codebooks, *grid]`."""

    original: Tensor
    codes: Tensor
    reconstruction: Tensor
    figures: Figures


@dataclass(frozen=True)
class Report:
    """What became of one file: either `target` was written, or there is an `error`.

    codes_shape: `[num_codebooks, *grid]`. figures: of `reconstruct_files`.
    """

    source: Path
    target: Path | None = None
    codes_shape: tuple[int, ...] | None = None
    figures: Figures | None = None
    error: ZooError | None = None


class Reports:
    """Reports in the order of the files, each made when it is asked for; `len` is the number of files."""

    def __init__(self, count: int, reports: Iterator[Report]):
        self._count, self._reports = count, reports

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Report]:
        return self._reports


def encode_files(
    tokenizer: Tokenizer,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    format: Literal["npz", "safetensors"] = "npz",
    resample: bool = True,
    batch_size: int = 1,
    overwrite: bool = False,
) -> Reports:
    """Signals to code files.

    Args:
        inputs: files, and folders whose files of the tokenizer's modality are taken, with their subfolders.
        out: folder, in which a folder's files keep their relative paths; or, for one input file, the code file.
        format: of the code files in a folder.
        resample: whether audio of another rate is resampled; if not, it is an error.
        batch_size: signals of one size that follow each other and are encoded at once.
        overwrite: whether code files that are there already are replaced.

    Raises:
        InputError: `batch_size`, or more than one input for one file.
        MediaError: an input that does not exist, or a folder without files.
    """
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    sources = find_sources(inputs, partial(media.media_files, modality=tokenizer.spec.modality))
    outputs = Outputs(sources, Path(out), CODE_SUFFIXES, overwrite)

    def reports() -> Iterator[Report]:
        batch: list[tuple[Path, Path, Tensor]] = []
        for source, relative in sources:
            try:
                target = outputs.claim(source, relative, f".{format}")
                signal = tokenizer.preprocess(source, resample=resample)
            except ZooError as error:
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
                yield Report(source, error=error)
                continue
            if len(batch) == batch_size or (batch and signal.shape != batch[0][2].shape):
                yield from encode_batch(tokenizer, batch, overwrite)
                batch = []
            batch.append((source, target, signal))
        yield from encode_batch(tokenizer, batch, overwrite)

    return Reports(len(sources), reports())


def encode_batch(tokenizer: Tokenizer, batch: list[tuple[Path, Path, Tensor]], overwrite: bool) -> Iterator[Report]:
    """Signals of one size, with their source and target, to code files; one that is refused stops no other."""
    if not batch:
        return
    try:
        codes = tokenizer.encode(torch.cat([signal for _, _, signal in batch]))
    except ZooError as error:
        if len(batch) == 1:
            yield Report(batch[0][0], error=error)
            return
        for single in batch:
            yield from encode_batch(tokenizer, [single], overwrite)
        return
    spec = tokenizer.spec
    for (source, target, signal), item in zip(batch, codes.split(1), strict=True):
        try:
            save_codes(
                target,
                item,
                name=spec.name,
                codebook_sizes=spec.codebook_sizes,
                size=signal.shape[2:],
                overwrite=overwrite,
            )
            yield Report(source, target, tuple(item.shape[1:]))
        except ZooError as error:
            yield Report(source, error=error)


def decode_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Reports:
    """Code files to signals: PNG or WAV, or for one file what the suffix of `out` names.

    Args:
        inputs: code files, and folders of them.
        out: as in `encode_files`.
        name: the tokenizer, as `zoo.load` takes it; codes of another are an error. None: the one each file names.
        device, dtype: of the weights.
        overwrite: whether files that are there already are replaced.

    Raises:
        As `encode_files`; and what `zoo.load` raises of a tokenizer that is known.
    """
    sources = find_sources(inputs, code_files)
    outputs = Outputs(sources, Path(out), (*media.SUFFIXES["image"], *media.SUFFIXES["audio"]), overwrite)
    load = lru_cache(maxsize=1)(lambda name: registry.load(name, device=device, dtype=dtype))
    named = load(name) if name is not None else None

    def reports() -> Iterator[Report]:
        for source, relative in sources:
            try:
                file = load_codes(source)
                if len(file.codes) > 1 or file.lengths is not None:
                    raise InputError(f"{source}: holds a batch, which Tokenizer.decode takes; expected one signal")
                spec = named.spec if named is not None else registry.info(file.name).spec
                file.check(spec.name)
                target = outputs.claim(source, relative, SIGNAL_SUFFIX[spec.modality])
                tokenizer = named if named is not None else load(file.name)
                write_signal(target, tokenizer.decode(file.codes, size=file.size), spec, overwrite)
                yield Report(source, target, tuple(file.codes.shape[1:]))
            except (InputError, MediaError, UnknownTokenizerError) as error:
                yield Report(source, error=error)

    return Reports(len(sources), reports())


def reconstruct_files(
    tokenizer: Tokenizer,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    resample: bool = True,
    overwrite: bool = False,
) -> Reports:
    """Signals encoded and decoded again, as PNG or WAV, with what it cost and what was lost; as `encode_files`."""
    sources = find_sources(inputs, partial(media.media_files, modality=tokenizer.spec.modality))
    modality = tokenizer.spec.modality
    outputs = Outputs(sources, Path(out), media.SUFFIXES[modality], overwrite)

    def reports() -> Iterator[Report]:
        for source, relative in sources:
            try:
                target = outputs.claim(source, relative, SIGNAL_SUFFIX[modality])
                result = reconstruct(tokenizer, tokenizer.preprocess(source, resample=resample))
                write_signal(target, result.reconstruction, tokenizer.spec, overwrite)
                yield Report(source, target, tuple(result.codes.shape[1:]), result.figures)
            except ZooError as error:
                yield Report(source, error=error)

    return Reports(len(sources), reports())


def reconstruct(tokenizer: Tokenizer, signal: Tensor) -> Reconstruction:
    """One signal encoded and decoded again.

    Args:
        signal: `[1, channels, *size]`, as `preprocess` gives it.

    Raises:
        InputError: as `Tokenizer.encode`.
    """
    start = time.perf_counter()
    codes = tokenizer.encode(signal)
    decoded = tokenizer.decode(codes, size=tuple(signal.shape[2:]))
    original, reconstruction = signal.float().cpu(), decoded.float().cpu()
    seconds = time.perf_counter() - start
    bits = codes[0, 0].numel() * tokenizer.spec.bits_per_position
    return Reconstruction(
        original,
        codes.cpu(),
        reconstruction,
        Figures(
            tokens=codes.numel(),
            bits=bits,
            compression_ratio=RAW_BITS[tokenizer.spec.modality] * signal.numel() / bits,
            quality=quality(reconstruction, original, tokenizer.spec),
            seconds=seconds,
        ),
    )


def quality(reconstruction: Tensor, original: Tensor, spec: TokenizerSpec) -> dict[str, float | None]:
    """The metrics of `Figures.quality` for one signal; None where it has no finite value."""
    if spec.modality == "image":
        from zoo.metrics.image import psnr, ssim

        metrics = {"psnr": lambda: psnr(reconstruction, original), "ssim": lambda: ssim(reconstruction, original)}
    else:
        from zoo.metrics.audio import mel_distance, stoi

        metrics = {
            "mel_distance": lambda: mel_distance(reconstruction, original, spec.sample_rate),
            "stoi": lambda: stoi(reconstruction, original, spec.sample_rate),
        }
    return {name: defined(metric) for name, metric in metrics.items()}


def defined(metric: Callable[[], Tensor]) -> float | None:
    try:
        value = float(metric())
    except InputError:
        return None
    return value if math.isfinite(value) else None


def write_signal(path: Path, signal: Tensor, spec: TokenizerSpec, overwrite: bool = False) -> None:
    """A batch of one in its public layout to the file `path`."""
    signal = signal[0].float().cpu()
    if spec.modality == "image":
        media.write_image(path, signal, overwrite=overwrite)
    else:
        media.write_audio(path, signal, spec.sample_rate, overwrite=overwrite)


# Which files, and where to


def code_files(path: Path) -> list[Path]:
    """A code file, or those of a folder and its subfolders, sorted; MediaError where there is none."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("[!.]*") if file.suffix in CODE_SUFFIXES and file.is_file())
        if not files:
            raise MediaError(f"{path}: holds no code file ({' '.join(CODE_SUFFIXES)})")
        return files
    if not path.exists():
        raise MediaError(f"{path}: no such file or folder")
    return [path]


def find_sources(inputs: Sequence[str | Path], files_of: Callable[[Path], list[Path]]) -> list[tuple[Path, Path]]:
    """Every file that `files_of` finds for an input, with its path relative to the input that is a folder."""
    return [
        (file, file.relative_to(path) if path.is_dir() else Path(file.name))
        for path in map(Path, inputs)
        for file in files_of(path)
    ]


class Outputs:
    """Where the outputs of `sources` go, so that none replaces a source, another output or, unasked, an older file.

    Args:
        sources: as `find_sources` gives them.
        out: folder, or one file if it ends in one of `file_suffixes`.
    """

    def __init__(self, sources: list[tuple[Path, Path]], out: Path, file_suffixes: tuple[str, ...], overwrite: bool):
        self.out, self.overwrite = out, overwrite
        self.is_file = out.suffix in file_suffixes and not out.is_dir()
        if self.is_file and len(sources) != 1:
            raise InputError(f"{out}: is one file, for {len(sources)} inputs; name a folder")
        self._taken = {source.resolve(): source for source, _ in sources}

    def claim(self, source: Path, relative: Path, suffix: str) -> Path:
        """The path to write, in a folder that exists.

        Raises:
            MediaError: it is taken, or its folder cannot be made.
        """
        target = self.out if self.is_file else self.out / relative.with_suffix(suffix)
        if other := self._taken.get(target.resolve()):
            raise MediaError(f"{source}: would be written to {target}, which is that of {other}")
        if target.exists() and not self.overwrite:
            raise MediaError(f"{target}: exists already, and overwrite is not set")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{target.parent}: cannot be made: {error.strerror}") from error
        self._taken[target.resolve()] = source
        return target
