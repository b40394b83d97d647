"""Results for each file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zoo.errors import ZooError


@dataclass(frozen=True)
class Figures:
    """Figures of one signal: what its codes cost, and what was lost.

    tokens, bits: number of tokens, and of bits in the codes.
    compression_ratio: bits of the signal per bit of the codes. A value of an image or video has 8 bits, a sample of
        audio 16, a coordinate of an atom 32.
    quality: `psnr` (dB) and `ssim` (for video the mean over frames), `mel_distance` and `stoi`, or `ca_rmsd` and `rmsd`
        of the backbone (angstrom, after superposition); None for one that is not defined or infinite.
    seconds: time of encoding and decoding.
    """

    tokens: int
    bits: float
    compression_ratio: float
    quality: dict[str, float | None]
    seconds: float


@dataclass(frozen=True)
class Reconstruction:
    """A signal that was encoded and decoded again.

    original, reconstruction: float32 in the public layout, a batch of one on the CPU. codes: `[1, num_codebooks,
        *grid]`. figures: what this cost and lost.
    """

    original: Tensor
    codes: Tensor
    reconstruction: Tensor
    figures: Figures


@dataclass(frozen=True)
class FileResult:
    """The result for one file: `target` was written, now or by an earlier run, or there is an `error`.

    codes_shape: `[num_codebooks, *grid]`. figures: from `reconstruct_files` only.
    done_before: whether an earlier run wrote `target`, so that nothing was done; its figures are not known.
    error: the reason for a failure; an `UnexpectedError` if zoo does not raise it on purpose.
    """

    source: Path
    target: Path | None = None
    codes_shape: tuple[int, ...] | None = None
    figures: Figures | None = None
    done_before: bool = False
    error: ZooError | None = None


class FileResults:
    """Results in the order of the files, each made when it is asked for.

    sources: the files, each of which has one result, or one for each of its chains; `len` is their number.
    """

    def __init__(self, sources: Sequence[Path], results: Iterator[FileResult]):
        self.sources, self._results = tuple(sources), results

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[FileResult]:
        return self._results
