"""The table of points as CSV and as LaTeX, and several results as one."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.bench.comparisons import compare
from zoo.bench.results import Interval, Point, Results
from zoo.errors import InputError
from zoo.files import atomic_path

LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Å": r"\AA{}",
    "°": r"\textdegree{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
ARROWS = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}


def write_csv(results: Results, path: str | Path) -> None:
    """Write a row for each point: what it is, its rate, and every figure with its interval. An older file is replaced.

    A cell is empty where there is no figure. `METRIC_undefined` counts the files that a mean is not over, since the
    metric has no figure for them.

    Raises:
        MediaError: a file that cannot be written.
    """
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    columns = ["candidate", "method", "setting", "baseline", "files", "bytes", results.rate_unit]
    parts = ("", "_low", "_high", "_undefined")
    writer.writerow(
        [
            *columns,
            *(f"{name}{part}" for name in results.metrics for part in parts),
            *("encode_speed", "decode_speed", "peak_bytes"),
        ]
    )
    for point in results.points:
        intervals = [point.metrics[name] for name in results.metrics]
        figures = [[each.value, each.low, each.high, each.undefined] for each in intervals]
        what = [point.label, point.method, json.dumps(point.setting), point.baseline, results.data.get("files")]
        costs = [point.encode_speed, point.decode_speed, point.peak_bytes]
        writer.writerow([*what, point.bytes, point.rate, *(value for four in figures for value in four), *costs])
    _write(path, rows.getvalue())


def write_latex(results: Results, path: str | Path) -> None:
    """Write a table for the package booktabs: the rate and every figure of each point; an older file is replaced.

    Arrows show the better direction. The best figure of each metric is bold, among classical codecs and the others
    apart, since they have different rates.

    Raises:
        MediaError: a file that cannot be written.
    """
    heads = ["Candidate", results.rate_unit]
    for facts in results.metrics.values():
        unit = f" ({facts['unit']})" if facts["unit"] else ""
        heads.append(f"{facts['label']}{unit}")
    arrows = ["", "", *(ARROWS[facts["higher_is_better"]] for facts in results.metrics.values())]
    groups = [[point for point in results.points if point.baseline is baseline] for baseline in (False, True)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(f"{latex(head)}{arrow}" for head, arrow in zip(heads, arrows, strict=True)) + r" \\",
    ]
    for group in filter(None, groups):
        best = {name: _best(group, name, facts) for name, facts in results.metrics.items()}
        lines.append(r"\midrule")
        for point in group:
            cells = [latex(point.label), f"{point.rate:.4g}"]
            for name, facts in results.metrics.items():
                cells.append(_latex_cell(point.metrics[name], facts, bold=best[name] is point))
            lines.append(" & ".join(cells) + r" \\")
    _write(path, "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]))


def latex(text: str) -> str:
    """Return text with the characters escaped that LaTeX reads as commands."""
    return "".join(LATEX_CHARACTERS.get(character, character) for character in text)


def merge(paths: Sequence[str | Path], out: str | Path) -> Results:
    """Return the points of several results as one, with the distances between all their curves.

    Args:
        paths: files `results.json` of benchmarks of the same files, preprocessing and metrics, or their folders. A
            point that several of them have is taken once.
        out: folder that the items' reconstructions are found from; nothing is written.

    Raises:
        MediaError: a file that cannot be read.
        InputError: fewer than two results; others that differ in modality, data, preprocessing, protocol or metrics; or
            two different points of the same label.
    """
    files = [Path(path) / "results.json" if Path(path).is_dir() else Path(path) for path in paths]
    if len(files) < 2:
        raise InputError(f"expected at least two results to merge, got {len(files)}")
    loaded = [Results.load(path) for path in files]
    first = loaded[0]
    points: dict[str, Point] = {}
    for path, results in zip(files, loaded, strict=True):
        for what, mine, theirs in _compared(first, results):
            if mine != theirs:
                raise InputError(f"{path}: another {what} than in {files[0]}: {theirs}, expected {mine}")
        for point in results.points:
            moved = _from_folder(point, path.parent, Path(out))
            known = points.setdefault(point.label, moved)
            if known.identity != point.identity:
                raise InputError(
                    f"{path}: {point.label!r} is another candidate than in an earlier file: {point.identity}, "
                    f"expected {known.identity}"
                )
    left_out = {what: reason for results in loaded for what, reason in results.left_out.items() if what not in points}
    together = list(points.values())
    return replace(
        first,
        points=together,
        left_out=left_out,
        comparisons=compare(together, first.metrics),
        variants={method: facts for results in loaded for method, facts in results.variants.items()},
    )


def _compared(first: Results, other: Results) -> list[tuple[str, Any, Any]]:
    """Return what has to be equal, in words, in both."""
    return [
        ("modality", first.modality, other.modality),
        ("protocol", first.protocol.get("name"), other.protocol.get("name")),
        ("number of files", first.data.get("files"), other.data.get("files")),
        ("data (hash of names and contents)", first.data.get("sha256"), other.data.get("sha256")),
        ("preprocessing", first.data.get("preprocessing"), other.data.get("preprocessing")),
        ("set of metrics", first.metrics, other.metrics),
    ]


def _from_folder(point: Point, folder: Path, out: Path) -> Point:
    """Return a point whose items' reconstructions are found from another folder."""
    items = [
        replace(item, reconstruction=Path(os.path.relpath(folder / item.reconstruction, out)).as_posix())
        for item in point.items
    ]
    return replace(point, items=items)


def _best(points: Sequence[Point], metric: str, facts: dict[str, Any]) -> Point | None:
    known = [(value, point) for point in points if (value := point.metrics[metric].value) is not None]
    if facts["higher_is_better"] is None or len(known) < 2:
        return None
    pick = max if facts["higher_is_better"] else min
    return pick(known, key=lambda pair: pair[0])[1]


def _latex_cell(interval: Interval, facts: dict[str, Any], *, bold: bool) -> str:
    if interval.value is None:
        return "--"
    text = f"{interval.value:.{int(facts['digits'])}f}"
    return rf"\textbf{{{text}}}" if bold else text


def _write(path: str | Path, text: str) -> None:
    with atomic_path(Path(path), overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
