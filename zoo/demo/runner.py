"""The demo, which works offline and writes a page to look at and listen to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from zoo import modalities, registry, saved
from zoo.demo.exhibits import exhibit, partial_counts
from zoo.demo.page import DemoPage
from zoo.demo.samples import samples
from zoo.errors import InputError, MediaError, ZooError, as_zoo_error
from zoo.files import atomic_path
from zoo.inference import for_inference
from zoo.modalities import Signal
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.transcode import Figures, reconstruct
from zoo.transcode.paths import find_sources

if TYPE_CHECKING:
    from PIL.Image import Image

# How much of each input is taken, so that the demo stays quick. A network of fixed size gets that size instead.
LIMITS: dict[str, dict[str, float]] = {
    "image": {"resolution": 256},
    "audio": {"seconds": 10.0},
    "video": {"resolution": 128, "frames": 33},
    "structure": {"residues": 256},
}
# Tokenizers that only encode, and write their codes as letters.
LETTERS = {"structure": "foldseek-3di"}


@dataclass(frozen=True)
class DemoInput:
    """One input of the demo.

    Attributes:
        name: name that is shown, and the stem of the files that are written.
        modality: name of the source's modality.
        source: a file, or an image in memory.
        chain: id of the chain to take from a structure; None: the only one.
    """

    name: str
    modality: str
    source: Path | Image
    chain: str | None = None


@dataclass(frozen=True)
class DemoResult:
    """One input through one variant.

    Attributes:
        input: name of the input.
        modality: modality of the input.
        variant: name of the variant.
        figures: cost of the codes and loss; None where there is an `error`.
        files: the files that were written: the original, what its first few codes decode to where they do, and what
            all decode to; empty where there is an `error`.
        error: why there is no result; None: there is one.
    """

    input: str
    modality: str
    variant: str
    figures: Figures | None = None
    files: tuple[Path, ...] = ()
    error: ZooError | None = None


class Demo:
    """Iterates over the results in order, each made when it is asked for; `len` is their number.

    After the last, the page and the poster, its summary as one image, are written.

    Args:
        paths: images, audio, video and structures, and folders of them, to take besides the samples. Images become
            256x256 and clips 128x128 where the network takes any size. Of audio the first ten seconds are taken, of
            video the first 33 frames, of structures the first 256 residues.
        out: folder to write to; None: `zoo-demo` in the current folder, with a number after it if that exists.
        chain: id of the chain to take from structures among `paths`; None: the only one.
        overwrite: whether existing files are replaced.

    Attributes:
        folder: where everything is written: the page, and files in a subfolder for each variant.
        page, poster: where these two are written.

    Raises:
        InputError: a file of another kind, or of a kind that no variant with shipped weights decodes.
        MediaError: a path that does not exist, or a folder without any such files.
    """

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        out: str | Path | None = None,
        *,
        chain: str | None = None,
        overwrite: bool = False,
    ):
        self.folder = Path(out) if out is not None else next(name for name in numbered("zoo-demo") if not name.exists())
        self.page, self.poster = self.folder / "index.html", self.folder / "poster.jpg"
        self.overwrite = overwrite
        inputs = [
            DemoInput(name, modality, source)
            for modality in modalities.NAMES
            for name, source in samples(modality).items()
        ]
        variants = [variant for variant in map(registry.info, registry.list_tokenizers()) if variant.shipped]
        specs = [variant.spec for variant in variants if variant.builder.encode_only is None]
        ready = [name for name in modalities.NAMES if any(spec.modality == name for spec in specs)]
        for path, _ in find_sources(paths, lambda path: modalities.media_files(path, *modalities.NAMES)):
            modality = modalities.modality_of(path)
            if modality not in ready:
                raise InputError(
                    f"{path}: zoo ships no weights that decode {modality}; the demo takes {', '.join(ready)}"
                )
            taken = {known.name for known in inputs}
            name = next(str(name) for name in numbered(path.stem) if str(name) not in taken)
            inputs.append(DemoInput(name, modality, path, chain))
        self._work = [(item, spec) for item in inputs for spec in specs if spec.modality == item.modality]

    def __len__(self) -> int:
        return len(self._work)

    def __iter__(self) -> Iterator[DemoResult]:
        load, page = cache(load_quietly), DemoPage()
        for item, spec in self._work:
            try:
                with one_thread():
                    result = self._result(item, spec, load, page)
            except Exception as error:
                result = DemoResult(item.name, spec.modality, spec.name, error=as_zoo_error(error))
            yield result
        if page.is_empty:
            return
        with atomic_path(self.poster, self.overwrite) as temporary:
            page.poster().save(temporary, "JPEG", quality=90, subsampling=0)
        with atomic_path(self.page, self.overwrite) as temporary:
            temporary.write_text(page.html(), encoding="utf-8")

    def _result(
        self, item: DemoInput, spec: TokenizerSpec, load: Callable[[str], Tokenizer], page: DemoPage
    ) -> DemoResult:
        """Encode and decode an input, write its files, and add it to the page."""
        files = self._files(item.name, spec)
        tokenizer = load(spec.name)
        signal = load_input(tokenizer, item)
        result = reconstruct(tokenizer, signal.values[None])
        letters = to_letters(load(LETTERS[spec.modality]), result.original) if spec.modality in LETTERS else ""
        shown = exhibit(tokenizer, item.name, result, signal.frame_rate, letters)
        for path, values in zip(files, (shown.original, *(part.signal for part in shown.parts)), strict=True):
            tokenizer.modality.write(
                path,
                values,
                spec,
                frame_rate=signal.frame_rate,
                pixel_aspect=signal.pixel_aspect,
                overwrite=self.overwrite,
            )
        page.add(shown)
        return DemoResult(item.name, spec.modality, spec.name, result.figures, files)

    def _files(self, name: str, spec: TokenizerSpec) -> tuple[Path, ...]:
        """Return the files to write, the original first, and make their folder."""
        folder, suffix = self.folder / spec.name, modalities.get(spec.modality).signal_suffix
        fewer = [label.replace(" ", "-") for label in partial_counts(spec.partial)][:-1]
        suffixes = [*(f".{mark}{suffix}" for mark in ("original", *fewer)), suffix]
        files = tuple(folder / f"{name}{suffix}" for suffix in suffixes)
        for path in (self.page, self.poster, *files):
            if path.exists() and not self.overwrite:
                raise MediaError(f"{path}: exists already; choose another folder, or overwrite")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be made: {error.strerror}") from error
        return files


def demo(
    paths: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    chain: str | None = None,
    overwrite: bool = False,
) -> list[DemoResult]:
    """Run the whole demo and return its results; those that failed have an `error`.

    Args, Raises:
        As `Demo`.
    """
    return list(Demo(paths, out, chain=chain, overwrite=overwrite))


def load_input(tokenizer: Tokenizer, item: DemoInput) -> Signal:
    """Load what the demo takes of an input, as the tokenizer's network takes it."""
    limits = dict(LIMITS[item.modality])
    if not tokenizer.spec.variable_size:
        limits.pop("resolution", None)
    return tokenizer.modality.load(item.source, tokenizer.spec, **tokenizer.file_options(chain=item.chain), **limits)


def load_quietly(name: str) -> Tokenizer:
    """Load a shipped variant without the warning of its license, which the demo shows beside its results."""
    return for_inference(saved.load_variant(registry.info(name), None, None).eval())


@contextmanager
def one_thread() -> Iterator[None]:
    """Run networks on one thread: small ones are no faster on several, which then only wait for one another."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


def to_letters(tokenizer: Tokenizer, signal: Tensor) -> str:
    """Return a batch of one in the letters of a tokenizer that has some."""
    (letters,) = cast(Any, tokenizer).to_letters(tokenizer.encode(signal))
    return letters


def numbered(name: str) -> Iterator[Path]:
    """Yield `name`, `name-2`, `name-3`, ..."""
    return itertools.chain([Path(name)], (Path(f"{name}-{number}") for number in itertools.count(2)))
