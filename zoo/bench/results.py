"""The results of a benchmark as plain values, which are written as JSON and read by the report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

FORMAT = "zoo-bench-2"
ITEMS = "items.jsonl"  # beside the results
LINE = 120  # characters of a line of JSON that could be shorter


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval; None where there is none.

    The figure is a mean over items with a bootstrap interval, or a figure of the whole set with one from a jackknife
    over groups of files. `undefined` counts the items that a mean is not over, since the metric has no figure for them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    undefined: int = 0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file through one candidate.

    Attributes:
        source: path of the file relative to the data folder.
        bytes: size of the codes, or of the codec's stream.
        encode_seconds, decode_seconds: how long encoding and decoding took.
        metrics: figures by the metric's name; None where one is not defined or infinite.
        reconstruction: path, relative to the results, of a lossless file in the cache: PNG, FLAC (16 bits), MKV (FFV1,
            RGB) or BinaryCIF, in the preprocessed original's size.
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

    Attributes:
        label: method and setting in words, different for each point.
        method: name of the tokenizer or codec; the points of one method are a curve.
        baseline: whether the method is a classical codec.
        setting: what distinguishes the point from others of its method.
        identity: everything that decides the candidate's output.
        bytes: mean per item.
        rate: bits of all items by their pixels, seconds or residues, in the results' `rate_unit`.
        metrics: figures by the metric's name: the mean over the items that it is defined for, or the figure of the set.
        encode_speed, decode_speed: megapixels (images), seconds of signal (audio, video) or residues, per second.
        peak_bytes: memory beyond what the process held before the candidate ran.
        codes: statistics of the codes of all items, for tokenizers. One entry per codebook have `usage` (share of the
            entries that occur), `perplexity`, `entropy_bits` and `paid_bits` (of a token), and `histogram` (counts, a
            list of at most 256 bars of equally many neighbouring entries). `tokens` is the number of tokens per item,
            and `statistics` has the fields of `zoo.metrics.codes.CodeSummary`.
        note: what is counted in `bytes`, where that needs to be said.
        items: one for each file; empty in results whose items are not kept (see `Results.load`).
    """

    label: str
    method: str
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
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole benchmark.

    Attributes:
        modality: modality of the files.
        rate_unit: unit of the points' rates.
        metrics: for each metric that was computed, `label`, `unit`, `digits`, `higher_is_better` (None: neither), and
            `per_item`: whether it is a mean over items, and `settings`: what it was computed with, where that is not
            the default.
        points: one for each candidate.
        left_out: metrics and candidates that are not available, by their label, each with the reason.
        damaged: files that could not be used, by their path relative to the data folder, each with the reason; no
            point counts them.
        excluded: files that were left out on purpose, in the same way.
        data: `name` of the folder, number of `files` (without damaged ones), `sha256` over their names and contents,
            and `preprocessing`, what was done to them: `resolution` (the short side was resized to it and the centre
            cropped; None: as it is), `sample_rate` and `channels` (of audio), `seconds` (of audio and video; None:
            all), and the other fields of `zoo.bench.signals.Preprocessing`.
        machine: `processor`, `cores`, `threads`, `memory_bytes`, `system`, `device`, and `peak_memory`: how it was
            measured.
        versions: versions of Python, zoo and the packages that decide figures.
        seeds: seeds of the intervals (`bootstrap`) and of decoders that sample (`generator`).
        comparisons: for each metric of items, each tokenizer and each other method, a dictionary with `metric`,
            `method`, `reference` (the other method), `reference_is_baseline` and
            `kind` "bd": `bd_rate`, how many percent more bytes `method` needs for the same figure (negative: fewer),
                and `bd_metric`, by how much its figure is greater for the same bytes; or
            `kind` "point", where `method` has one setting: `label` of its point, and `rate_ratio`, how many times its
                bytes `reference` needs for the same figure.
            A value is None where the curves do not overlap or have a single point; `reason` then says why, and is None
            otherwise.
        protocol: of a run by a protocol, the fields of `zoo.bench.protocols.Protocol`; empty otherwise.
        variants: for each tokenizer, by method, its spec, `weights_sha256`, `network_sha256` and `parameters`.
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
    excluded: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the results as JSON and their items, one a line, as `items.jsonl` beside it; older files are replaced.

        Args:
            path: path of the JSON file, which has the hash of the items' file. Either can be kept without the other,
                but files of different results cannot be mixed.

        Raises:
            MediaError: a file that cannot be written.
        """
        path = Path(path)
        items = "".join(
            json.dumps({"point": point.label, **asdict(item)}, ensure_ascii=False) + "\n"
            for point in self.points
            for item in point.items
        )
        plain = asdict(self)
        for point in plain["points"]:
            del point["items"]
        plain = {"format": FORMAT, **plain, "items_sha256": _sha256(items)}
        for target, text in ((path.with_name(ITEMS), items), (path, f"{readable_json(plain)}\n")):
            with atomic_path(target, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read what `save` wrote; where `items.jsonl` is not beside it, the points have no items.

        Raises:
            MediaError: a file that cannot be read, or items that belong to other results.
            InputError: a file of another format.
        """
        path = Path(path)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MediaError(f"{path}: cannot be read as results ({error})") from error
        found = fields.pop("format", None) if isinstance(fields, dict) else None
        if found != FORMAT:
            raise InputError(f"{path}: expected results of format {FORMAT!r}, got {found!r}; run `zoo bench` again")
        items = _read_items(path.with_name(ITEMS), fields.pop("items_sha256"))
        points = [
            Point(
                **{**point, "metrics": {name: Interval(**value) for name, value in point["metrics"].items()}},
                items=items.get(point["label"], []),
            )
            for point in fields.pop("points")
        ]
        return cls(points=points, **fields)


def readable_json(value: Any, indent: int = 0) -> str:
    """Write JSON with a line for each entry, but lists of numbers and whatever is short on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    is_plain_list = isinstance(value, list) and not any(isinstance(entry, dict | list) for entry in entries)
    if not entries or is_plain_list or indent + len(flat) <= LINE:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        names = [json.dumps(name, ensure_ascii=False) for name in value]
        lines = [f"{name}: {readable_json(entry, indent + 1)}" for name, entry in zip(names, entries, strict=True)]
    else:
        lines = [readable_json(entry, indent + 1) for entry in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(lines) + f"\n{' ' * indent}{closing}"


def _read_items(path: Path, sha256: str) -> dict[str, list[Item]]:
    """Return items by the label of their point."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read ({error})") from error
    if _sha256(text) != sha256:
        raise MediaError(f"{path}: does not belong to the results beside it; remove it, or run `zoo bench` again")
    items: dict[str, list[Item]] = {}
    for line in text.split("\n")[:-1]:
        fields = json.loads(line)
        items.setdefault(fields.pop("point"), []).append(Item(**fields))
    return items


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
