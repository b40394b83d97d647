"""What a sink receives: the codes of one item, and what is true of all items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.modalities import MediaBytes


@dataclass(frozen=True)
class Facts:
    """What is true of all items of a corpus.

    tokenizer: name of the variant. weights: SHA-256 of its weights, in hexadecimal. modality: its kind of signal.
    codebook_sizes: number of entries of each codebook of the codes. sample_rate: of audio, in Hz; None otherwise.
    license: licence of the weights. options: those of `preprocess` and `encode` that the codes were made with.
    """

    tokenizer: str
    weights: str
    modality: str
    codebook_sizes: tuple[int, ...]
    sample_rate: int | None
    license: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """The codes of one item.

    source, key: as in `zoo.sources.items.Item`. codes: int64 `[num_codebooks, *grid]` on the CPU.
    size: size of the signal, to which `decode` crops. frame_rate: of a video, in frames per second.
    pixel_aspect: width by height of a video's pixels; None: they are square.
    media: the item's file, where a sink may store it beside the codes.
    """

    source: str
    key: str
    codes: Tensor
    size: tuple[int, ...]
    frame_rate: float | None = None
    pixel_aspect: float | None = None
    media: Path | MediaBytes | None = None

    @property
    def id(self) -> str:
        return f"{self.source}:{self.key}"


@dataclass(frozen=True, kw_only=True)
class StoredRow(Row):
    """The codes of one item as a corpus has them, with what is needed to decode them.

    tokenizer, weights, codebook_sizes, sample_rate: as in `Facts`.
    """

    tokenizer: str
    weights: str
    codebook_sizes: tuple[int, ...]
    sample_rate: int | None
