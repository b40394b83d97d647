"""What a benchmark found, as plain values: written as JSON, read by the report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

FORMAT = "zoo-bench-1"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over items with its 95 % bootstrap interval, or a figure of the set with that of a jackknife over groups.

    None where there is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file through one candidate.

    source: path relative to the data folder. bytes: of the codes, or of the codec's stream. reconstruction: path
    relative to the results, of the lossless file in the cache: PNG, FLAC (16 bits), MKV (FFV1, RGB) or BinaryCIF, in
    the preprocessed original's size. metrics: per item; None where not defined, or infinite.
    """

    source: str
    bytes: float
    encode_seconds: float
    decode_seconds: float
    metrics: dict[str, float | None]
    reconstruction: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """One candidate over all files.

    family: the curve that it belongs to. baseline: whether it is no tokenizer. setting: what distinguishes it in its
    family. identity: all that decides its output. bytes: mean per item. rate: all items' bits by all their pixels,
    seconds or residues, in the results' `rate_unit`.
    metrics: the mean of an item's figure over the items that it is defined for, or the figure of the set.
    encode_speed, decode_speed: seconds of signal (audio, video), megapixels (images) or residues, per second.
    peak_bytes: of memory, above what the process held before the candidate ran; 0 where all came from a cache
    that does not know.
    codes: figures of the codes of all items, for tokenizers; each a list with one entry a codebook: `usage` (share of
    the entries that occur), `perplexity`, `entropy_bits` and `paid_bits` (of a token), `histogram` (counts, a list of
    at most 256 bars of equally many neighbouring entries); further `tokens`, the number of them an item, and
    `statistics`, the fields of `zoo.metrics.codes.CodeSummary`.
    note: what is counted in `bytes`, where that needs saying.
    """

    label: str
    family: str
    baseline: bool
    setting: dict[str, Any]
    identity: str
    bytes: float
    rate: float
    metrics: dict[str, Interval]
    encode_speed: float
    decode_speed: float
    peak_bytes: int
    codes: dict[str, Any] | None
    note: str
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole benchmark.

    metrics: of each metric that was computed: label, unit, digits, higher_is_better; per_item, whether it is a mean.
    left_out: metrics and candidates that could not be had, by their label, each with its reason. damaged: files,
        by their path relative to the data folder, likewise; no point counts them.
    data: folder (absolute), files (their number, damaged ones not counted), sha256 over their names and contents,
        and preprocessing: what all candidates were given, `resolution` (the short side resized to, the centre
        cropped; None: as it is), `sample_rate` and `channels` (audio; others are resampled), `seconds` (of audio and
        video; None: all).
    machine: processor, cores, threads, memory_bytes, system, device; peak_memory: how it was measured.
    versions: of Python, zoo and the packages that decide figures.
    comparisons: for each metric of items, each tokenizer's curve and each other curve, a dictionary with `metric`,
        `family`, `reference` (the other one's family), `reference_is_baseline` and
        `kind` "bd": `bd_rate`, percent of bytes that `family` needs more (less, if negative) for the same figure, and
            `bd_metric`, by how much its figure is greater for the same bytes; or
        `kind` "point", where `family` has one setting: `label` of its point, and `rate_ratio`, how many times its
            bytes `reference` needs for the same figure.
        A value is None where the curves do not overlap or are no curves; `reason` says so then, else it is None.
    variants: of each tokenizer by family: weights_sha256, parameters, quantizer, codebook_sizes, weights_license, ...
    """

    modality: str
    rate_unit: str
    metrics: dict[str, dict[str, Any]]
    points: list[Point]
    left_out: dict[str, str]
    damaged: dict[str, str]
    data: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    seeds: dict[str, int]
    comparisons: list[dict[str, Any]]
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all, over an older file."""
        with atomic_path(Path(path), overwrite=True) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read what `save` wrote; MediaError for a file that cannot be read, InputError for another format."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MediaError(f"{path}: cannot be read as results ({error})") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise InputError(f"{path}: expected results of format {FORMAT!r}")
        points = [
            Point(
                **{
                    **point,
                    "metrics": {name: Interval(**value) for name, value in point["metrics"].items()},
                    "items": [Item(**item) for item in point["items"]],
                }
            )
            for point in fields.pop("points")
        ]
        return cls(points=points, **fields)
