"""Files and folders through a tokenizer: to codes, from codes, and there and back with the figures of the loss.

Each function checks what it is asked before it starts and returns `Reports`, which does the work as it is read: one
`Report` per file, so that a damaged file is told and the rest goes on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo import media, registry
from zoo.codes import CodeFile, load_codes, save_codes
from zoo.errors import InputError, MediaError, UnknownTokenizerError, ZooError
from zoo.metrics import METRICS
from zoo.tokenizer import Tokenizer, TokenizerSpec

CODE_SUFFIXES = (".npz", ".safetensors")
SIGNAL_SUFFIX = {"image": ".png", "audio": ".wav", "video": ".mp4", "structure": ".pdb"}
# Of a value (a coordinate of an atom that is there), in what the compression ratio is relative to.
RAW_BITS = {"image": 8, "audio": 16, "video": 8, "structure": 32}


# Of each modality's metrics, those that a reconstruction is reported with.
QUALITY = {
    "image": ("psnr", "ssim"),
    "audio": ("mel_distance", "stoi"),
    "video": ("psnr", "ssim"),
    "structure": ("ca_rmsd", "rmsd"),
}


@dataclass(frozen=True)
class Figures:
    """What a signal costs in codes and what they lose.

    compression_ratio: bits of the signal per bit of the codes; 8 for a value of a picture or video, 16 for a sample of
        audio, 32 for a coordinate of an atom.
    quality: `psnr` (dB) and `ssim` (of video the mean over frames), `mel_distance` and `stoi`, or `ca_rmsd` and `rmsd`
        of the backbone (angstrom, after superposition); None where it is not defined or infinite.
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
    chain: str | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> Reports:
    """Signals to code files; video is read and encoded window by window, in constant memory.

    Args:
        inputs: files, and folders whose files of the tokenizer's modality are taken, with their subfolders.
        out: folder, in which a folder's files keep their relative paths; or, for one input file, the code file.
        format: of the code files in a folder.
        resample: whether audio of another rate is resampled; if not, it is an error.
        chain: id of the chain to take from structure files; None: a file's only one.
        batch_size: signals of one size that follow each other and are encoded at once; of video one.
        overwrite: whether code files that are there already are replaced.

    Raises:
        InputError: `batch_size`, or more than one input for one file.
        MediaError: an input that does not exist, or a folder without files.
    """
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    sources = find_sources(inputs, lambda path: media.media_files(path, tokenizer.spec.modality))
    outputs = Outputs(sources, Path(out), CODE_SUFFIXES, overwrite)

    def reports() -> Iterator[Report]:
        batch: list[tuple[Path, Path, Tensor]] = []
        for source, relative in sources:
            try:
                target = outputs.claim(source, relative, f".{format}")
                if tokenizer.spec.modality == "video":
                    yield encode_video(tokenizer, source, target, overwrite)
                    continue
                signal = tokenizer.preprocess(source, resample=resample, chain=chain)
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
                size=tokenizer.size_of(signal),
                overwrite=overwrite,
            )
            yield Report(source, target, tuple(item.shape[1:]))
        except ZooError as error:
            yield Report(source, error=error)


def encode_video(tokenizer: Tokenizer, source: Path, target: Path, overwrite: bool) -> Report:
    """A video file to a code file, in windows of the spec's `chunk_frames`."""
    codes, frames, frame_rate = [], 0, None
    for window, rate in read_windows(tokenizer, source):
        codes.append(tokenizer.encode(window).cpu())
        frames, frame_rate = frames + window.shape[2], rate
    joined = torch.cat(codes, dim=2)
    save_codes(
        target,
        joined,
        name=tokenizer.spec.name,
        codebook_sizes=tokenizer.spec.codebook_sizes,
        size=(frames, *window.shape[3:]),
        frame_rate=frame_rate,
        overwrite=overwrite,
    )
    return Report(source, target, tuple(joined.shape[1:]))


def read_windows(tokenizer: Tokenizer, source: Path) -> Iterator[tuple[Tensor, float]]:
    """The windows of a video file as `encode` takes them, with the frames per second; MediaError where it has none."""
    windows = media.read_video(source, tokenizer.spec.chunk_frames)
    first = next(windows, None)
    if first is None:
        raise MediaError(f"{source}: holds no frame")
    for window, frame_rate in itertools.chain([first], windows):
        yield window[None].to(tokenizer.device).float() / 255, frame_rate


def decode_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Reports:
    """Code files to signals: PNG, WAV, MP4 or PDB, or for one file what the suffix of `out` names.

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
    outputs = Outputs(sources, Path(out), tuple(itertools.chain(*media.SUFFIXES.values())), overwrite)
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
                if spec.modality == "video":
                    decode_video(tokenizer, file, target, overwrite)
                else:
                    write_signal(target, tokenizer.decode(file.codes, size=file.size), spec, overwrite)
                yield Report(source, target, tuple(file.codes.shape[1:]))
            except (InputError, MediaError, UnknownTokenizerError) as error:
                yield Report(source, error=error)

    return Reports(len(sources), reports())


def decode_video(tokenizer: Tokenizer, file: CodeFile, target: Path, overwrite: bool) -> None:
    """The codes of a video to a file, window by window."""
    if file.frame_rate is None or file.size is None:
        raise InputError("expected codes of a video with their frame rate and size, as `zoo encode` writes them")
    frames, *sides = file.size

    def windows() -> Iterator[Tensor]:
        chunk = tokenizer.spec.chunk_frames
        for start, codes in enumerate(file.codes.split(tokenizer.spec.code_length(chunk), dim=2)):
            size = (min(chunk, frames - start * chunk), *sides)
            yield tokenizer.decode(codes, size=size)[0].float().cpu()

    media.write_video(target, windows(), file.frame_rate, overwrite=overwrite)


def reconstruct_files(
    tokenizer: Tokenizer,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    resample: bool = True,
    chain: str | None = None,
    overwrite: bool = False,
) -> Reports:
    """Signals encoded and decoded again, with what it cost and what was lost; arguments and files as above.

    Raises:
        As `encode_files`; InputError of a system that only encodes.
    """
    tokenizer.check_decodes()
    sources = find_sources(inputs, lambda path: media.media_files(path, tokenizer.spec.modality))
    modality = tokenizer.spec.modality
    outputs = Outputs(sources, Path(out), media.SUFFIXES[modality], overwrite)

    def reports() -> Iterator[Report]:
        for source, relative in sources:
            try:
                target = outputs.claim(source, relative, SIGNAL_SUFFIX[modality])
                if modality == "video":
                    yield reconstruct_video(tokenizer, source, target, overwrite)
                    continue
                result = reconstruct(tokenizer, tokenizer.preprocess(source, resample=resample, chain=chain))
                write_signal(target, result.reconstruction, tokenizer.spec, overwrite)
                yield Report(source, target, tuple(result.codes.shape[1:]), result.figures)
            except ZooError as error:
                yield Report(source, error=error)

    return Reports(len(sources), reports())


def reconstruct_video(tokenizer: Tokenizer, source: Path, target: Path, overwrite: bool) -> Report:
    """A video file encoded and decoded again, window by window."""
    originals = read_windows(tokenizer, source)
    first, frame_rate = next(originals)
    shapes: list[tuple[int, ...]] = []
    figures: list[Figures] = []
    frames: list[int] = []

    def windows() -> Iterator[Tensor]:
        for original in itertools.chain([first], (window for window, _ in originals)):
            result = reconstruct(tokenizer, original)
            shapes.append(tuple(result.codes.shape[1:]))
            figures.append(result.figures)
            frames.append(original.shape[2])
            yield result.reconstruction[0]

    media.write_video(target, windows(), frame_rate, overwrite=overwrite)
    num_codebooks, _, *sides = shapes[0]
    codes_shape = (num_codebooks, sum(shape[1] for shape in shapes), *sides)
    return Report(source, target, codes_shape, joined(figures, frames))


def joined(windows: Sequence[Figures], frames: Sequence[int]) -> Figures:
    """The figures of a video from those of its windows and the number of frames in each."""
    bits = sum(window.bits for window in windows)
    quality = {}
    for name in windows[0].quality:
        values = [window.quality[name] for window in windows]
        known = None not in values
        quality[name] = sum(v * n for v, n in zip(values, frames, strict=True)) / sum(frames) if known else None
    return Figures(
        tokens=sum(window.tokens for window in windows),
        bits=bits,
        compression_ratio=sum(window.compression_ratio * window.bits for window in windows) / bits,
        quality=quality,
        seconds=sum(window.seconds for window in windows),
    )


def reconstruct(tokenizer: Tokenizer, signal: Tensor) -> Reconstruction:
    """One signal encoded and decoded again, a video in one window.

    Args:
        signal: a batch of one, as `preprocess` gives it.

    Raises:
        InputError: as `Tokenizer.encode`.
    """
    start = time.perf_counter()
    codes = tokenizer.encode(signal)
    decoded = tokenizer.decode(codes, size=tokenizer.size_of(signal))
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
            compression_ratio=RAW_BITS[tokenizer.spec.modality] * int(signal.isfinite().sum()) / bits,
            quality=quality(reconstruction, original, tokenizer.spec),
            seconds=seconds,
        ),
    )


def quality(reconstruction: Tensor, original: Tensor, spec: TokenizerSpec) -> dict[str, float | None]:
    """The metrics of `Figures.quality` for one signal; None where it has no finite value."""
    metrics = {name: METRICS[spec.modality][name] for name in QUALITY[spec.modality]}
    values = {name: float(metric.per_item(reconstruction, original, spec)) for name, metric in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def write_signal(path: Path, signal: Tensor, spec: TokenizerSpec, overwrite: bool = False) -> None:
    """A batch of one in its public layout to the file `path`."""
    signal = signal[0].float().cpu()
    if spec.modality == "image":
        media.write_image(path, signal, overwrite=overwrite)
    elif spec.modality == "structure":
        media.write_structure(path, signal, overwrite=overwrite)
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
