"""Results for each file."""

from __future__ import annotations

from collections.abc import Iterator
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
    """The result for one file: either `target` was written, or there is an `error`.

    codes_shape: `[num_codebooks, *grid]`. figures: cost and loss, from `reconstruct_files`.
    """

    source: Path
    target: Path | None = None
    codes_shape: tuple[int, ...] | None = None
    figures: Figures | None = None
    error: ZooError | None = None


class FileResults:
    """Results in the order of the files, each computed when it is asked for; `len` is the number of files."""

    def __init__(self, count: int, results: Iterator[FileResult]):
        self._count, self._results = count, results

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[FileResult]:
        return self._results
