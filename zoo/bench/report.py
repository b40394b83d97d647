"""The report: one HTML page that holds everything itself and first says which method wins at which rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo import modalities
from zoo.bench.exhibits import exhibits
from zoo.bench.page import document, table
from zoo.bench.results import Interval, Point, Results
from zoo.bench.verdict import Span, elsewhere, points_by_method, rate_text, sentence, spans
from zoo.files import atomic_path
from zoo.pictures.markup import Markup, element, joined
from zoo.pictures.plots import CurvePoint, Palette, curve_plot, log_ticks, usage_plot

FEW_FILES = 10
MOST_CODEBOOKS = 16  # drawn for one tokenizer
NONE = "-"


def write_report(results: Results, folder: Path, target: Path, data: Path | None = None) -> None:
    """Write the results as a page that opens from disk; an older file is replaced.

    Args:
        results: as `zoo.bench` returns them.
        folder: the folder of the results, which the paths of the items' reconstructions are relative to.
        target: the HTML file, written whole or not at all.
        data: folder of the originals; the page then shows originals and reconstructions, or says in their place why it
            cannot. None: it shows none, for data whose license forbids passing them on.

    Raises:
        MediaError: `target` cannot be written.
    """
    page = ReportPage(results, Path(folder), data).page()
    with atomic_path(Path(target), overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8")


class ReportPage:
    """Writes the sections of the page."""

    def __init__(self, results: Results, folder: Path, data: Path | None):
        self.results, self.folder, self.data = results, folder, data
        self.modality = modalities.get(results.modality)
        self.methods = points_by_method(results.points)
        self.palette = Palette({method: points[0].baseline for method, points in self.methods.items()})

    def page(self) -> str:
        """Return the whole page."""
        sections: dict[str, tuple[str, Markup | None]] = {
            "verdict": ("Who wins at which rate", self._verdict()),
            "curves": ("Rate and distortion", self._plots()),
            "examples": ("Best, median, worst", self._examples()),
            "distances": ("Distances between the curves", self._comparisons()),
            "points": ("All points", self._points()),
            "codes": ("How the codes are used", self._codes()),
            "protocol": ("By which protocol", self._protocol()),
            "missing": ("What is missing", self._left_out()),
            "origin": ("Where the figures come from", self._provenance()),
        }
        sections = {key: (title, content) for key, (title, content) in sections.items() if content}
        links = [element("li", element("a", key.capitalize(), href=f"#{key}")) for key in sections]
        title = f"{self.modality.title}: which tokenizer at which rate"
        header = element(
            "header",
            element("h1", title),
            element("p", self._scope(), class_="soft"),
            element("nav", element("ul", *links), aria_label="Sections"),
        )
        body = [
            element("section", element("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")
            for key, (title, content) in sections.items()
            if key != "origin"
        ]
        last, content = sections["origin"]
        footer = element("footer", element("h2", last), content, id="origin")
        return document(title, header, element("main", *body), footer)

    def _scope(self) -> str:
        tokenizers = sum(not points[0].baseline for points in self.methods.values())
        files = self.results.data.get("files", 0)
        parts = [
            f"{_count(tokenizers, 'tokenizer')} and {_count(len(self.methods) - tokenizers, 'classical codec')}",
            f"on {_count(files, self.modality.noun[0])}",
            f"of {self.results.data.get('name', 'the data')}",
        ]
        if self.results.protocol:
            parts.append(f"by the protocol {self.results.protocol['name']}")
        others = {"could not be used": self.results.damaged, "excluded": self.results.excluded}
        left = [f"; {_count(len(files), 'further file')} {what}" for what, files in others.items() if files]
        return " ".join(parts) + "".join(left) + "."

    def _examples(self) -> Markup | None:
        return None if self.data is None else exhibits(self.results, self.folder, self.data, self.palette)

    # Verdict

    def _verdict(self) -> Markup:
        entries = []
        rates = [point.rate for point in self.results.points if point.rate > 0]
        for metric in self.results.metrics:
            ranges = spans(self.results, metric)
            text = self._in_words(sentence(self.results, metric, ranges))
            more = self._in_words(elsewhere(self.results, metric, ranges))
            strip = self._strip(ranges, min(rates), max(rates)) if ranges and min(rates) < max(rates) else None
            title = element("h3", *self._metric_title(metric))
            others = element("p", more, class_="others") if more else None
            entries.append(element("li", title, element("p", text), strip, others))
        return joined(element("ol", *entries, class_="verdicts"), element("p", self._reading(), class_="soft"))

    def _in_words(self, pieces: list[str | tuple[str]]) -> Markup:
        return joined(*(self.palette.name(piece[0]) if isinstance(piece, tuple) else piece for piece in pieces))

    def _metric_title(self, metric: str) -> Iterator[str]:
        facts = self.results.metrics[metric]
        yield facts["label"]
        yield f" in {facts['unit']}" if facts["unit"] else ""
        if facts["higher_is_better"] is not None:
            yield ", higher is better" if facts["higher_is_better"] else ", lower is better"
        if not facts.get("per_item", True):
            yield "; one figure of the whole set, its interval from a jackknife over groups of files"

    def _reading(self) -> str:
        text = (
            "A rate is a budget: a curve's figure is interpolated between its points, on the logarithm of the rate, "
            "and above its highest rate it stays the same. Curves tie where the 95 % bootstrap interval of the mean "
            "difference between them, file by file, contains zero. Bytes are true bytes: those of packed codes, and "
            "for codecs what the table of points says."
        )
        files = self.results.data.get("files", 0)
        if files < FEW_FILES:
            text += f" With only {_count(files, 'file')}, intervals say little."
        return text

    def _strip(self, ranges: list[Span], low: float, high: float) -> Markup:
        """Draw the spans on the logarithm of the rate, hidden from screen readers since the sentence says the same."""
        whole = math.log(high / low)
        parts = []
        start = math.log(ranges[0].low / low)
        if start > 1e-9:
            parts.append(element("span", style=f"flex:{start / whole:.4f} 0 0;visibility:hidden"))
        for span in ranges:
            share = math.log(span.high / span.low) / whole
            colors = [self.palette.color(method) for method in span.methods]
            kind = "alone" if span.alone else "tie" if len(span.methods) > 1 else None
            name = " = ".join(span.methods)
            style = f"flex:{max(share, 0.004):.4f} 0 0;--c:{colors[0]};--d:{colors[1 % len(colors)]}"
            parts.append(element("span", f"only {name}" if span.alone else name, class_=kind, style=style, title=name))
        end = math.log(high / ranges[-1].high)
        if end > 1e-9:
            parts.append(element("span", style=f"flex:{end / whole:.4f} 0 0;visibility:hidden"))
        ticks = [
            element("span", f"{tick:,.4g}", style=f"left:{100 * place:.2f}%")
            for tick in log_ticks(low, high)
            if 0.03 < (place := math.log(tick / low) / whole) < 0.97
        ]
        return element(
            "div",
            element("div", *parts, class_="strip"),
            element("div", *ticks, class_="ticks"),
            aria_hidden="true",
        )

    # Plots

    def _plots(self) -> Markup | None:
        figures = []
        for metric, facts in self.results.metrics.items():
            curves = self._curves(metric, facts)
            if not curves:
                continue
            unit, names = self.results.rate_unit, list(curves)
            description = (
                f"{facts['label']} against {unit} for {', '.join(names)}; the figures are in the table of points"
            )
            plot = curve_plot(curves, self.palette, x_label=unit, description=description)
            better = {True: "higher is better", False: "lower is better", None: ""}[facts["higher_is_better"]]
            small = f"{facts['unit']}, {better}".strip(", ")
            caption = element("figcaption", facts["label"], element("small", small) if small else None)
            figures.append(element("figure", caption, plot, self.palette.legend(names)))
        if not figures:
            return None
        note = (
            "Bars are 95 % bootstrap intervals of the mean. Tokenizers are filled marks, classical codecs hollow ones."
        )
        return joined(element("p", note, class_="soft"), element("div", *figures, class_="plots"))

    def _curves(self, metric: str, facts: dict[str, Any]) -> dict[str, list[CurvePoint]]:
        """Return the methods that have a figure at some rate above 0, each with the points that do."""
        curves = {
            method: [drawn for point in points if (drawn := self._curve_point(point, metric, facts)) is not None]
            for method, points in self.methods.items()
        }
        return {method: points for method, points in curves.items() if points}

    def _curve_point(self, point: Point, metric: str, facts: dict[str, Any]) -> CurvePoint | None:
        interval = point.metrics.get(metric)
        if interval is None or interval.value is None or not math.isfinite(interval.value) or point.rate <= 0:
            return None
        digits = int(facts["digits"])
        text = f"{interval.value:,.{digits}f}"
        if interval.low is not None and interval.high is not None:
            text += f" [{interval.low:,.{digits}f}, {interval.high:,.{digits}f}]"
        text = f"{point.label}: {text} {facts['unit']}".rstrip()
        return CurvePoint(
            x=point.rate,
            y=interval.value,
            low=interval.low,
            high=interval.high,
            text=f"{text} at {rate_text(point.rate)} {self.results.rate_unit}",
        )

    # Comparisons

    def _comparisons(self) -> Markup | None:
        if not self.results.comparisons:
            return None
        explained = (
            "BD-rate (Bjontegaard) says how many percent more bytes a curve needs than its reference for the same "
            "figure (negative: fewer), BD figure by how much its figure is greater for the same bytes. Both are "
            "averages over what the two curves have in common. A tokenizer with a single rate has no curve; the table "
            "then says how many times its bytes the reference needs to be as good."
        )
        shown = [element("p", explained, class_="soft")]
        for number, (metric, group) in enumerate(groupby(self.results.comparisons, key=lambda entry: entry["metric"])):
            facts = self.results.metrics.get(metric, {"label": metric, "unit": "", "digits": 3})
            title = f"{facts['label']}: tokenizers and their references"
            rows = [self._comparison(entry, facts) for entry in group]
            columns = ["Tokenizer", "Reference", "BD-rate", "BD figure", "Bytes that the reference needs", "Why not"]
            kept = [i for i in range(len(columns)) if i < 2 or any(row[i] != NONE for row in rows)]
            whole = table(title, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], numeric_from=9)
            shown.append(element("details", element("summary", facts["label"]), whole, open=number == 0))
        return joined(*shown)

    def _comparison(self, entry: dict[str, Any], facts: dict[str, Any]) -> list[str]:
        rate, figure, ratio = (entry.get(key) for key in ("bd_rate", "bd_metric", "rate_ratio"))
        return [
            entry["method"],
            entry["reference"],
            NONE if rate is None else f"{rate:+,.1f} %",
            NONE if figure is None else f"{figure:+,.{facts['digits']}f} {facts['unit']}".rstrip(),
            NONE if ratio is None else f"{ratio:,.2f} times",
            entry.get("reason") or NONE,
        ]

    # Points

    def _points(self) -> Markup:
        results, speed = self.results, self.modality.speed_unit
        columns = ["Candidate", results.rate_unit, "bytes per item"]
        columns += [f"{facts['label']} ({facts['unit']})".replace(" ()", "") for facts in results.metrics.values()]
        columns += [f"encodes, {speed}", f"decodes, {speed}", "peak MB"]
        rows = [self._point(point) for points in self.methods.values() for point in points]
        notes: dict[str, list[str]] = {}
        for method, points in self.methods.items():
            for note in dict.fromkeys(point.note for point in points if point.note):
                notes.setdefault(note, []).append(method)
        listed = [
            part for note, methods in notes.items() for part in (element("dt", ", ".join(methods)), element("dd", note))
        ]
        caption = f"Means over {_count(results.data.get('files', 0), 'file')} with 95 % bootstrap intervals"
        return joined(
            table(caption, columns, rows),
            joined(element("h3", "What counts as bytes"), element("dl", *listed)) if listed else None,
        )

    def _point(self, point: Point) -> list[str]:
        cells = [point.label, rate_text(point.rate), f"{point.bytes:,.0f}"]
        for metric, facts in self.results.metrics.items():
            cells.append(_cell(point.metrics.get(metric), int(facts["digits"])))
        peak = f"{point.peak_bytes / 1e6:,.0f}" if point.peak_bytes else NONE
        return [*cells, _speed(point.encode_speed), _speed(point.decode_speed), peak]

    # Codes

    def _codes(self) -> Markup | None:
        drawn, rows = [], []
        for method, points in self.methods.items():
            counted = [point for point in points if point.codes]
            rows += [self._code_row(point) for point in counted]
            if counted:
                drawn.append(self._usage(method, counted[-1]))
        if not drawn:
            return None
        columns = ["Tokenizer", "tokens per item", "entries used", "perplexity", "bits used", "bits paid"]
        caption = (
            "Means over codebooks: share of the entries that occur, 2 to the power of the entropy, entropy of a token, "
            "and the bits that a token takes"
        )
        return joined(table(caption, columns, rows), *drawn)

    def _code_row(self, point: Point) -> list[str]:
        codes = point.codes or {}
        tokens, usage = codes.get("tokens"), _mean(codes.get("usage"))
        perplexity, used, paid = (_mean(codes.get(key)) for key in ("perplexity", "entropy_bits", "paid_bits"))
        return [
            point.label,
            NONE if tokens is None else f"{tokens:,.0f}",
            NONE if usage is None else f"{100 * usage:.1f} %",
            NONE if perplexity is None else f"{perplexity:,.1f}",
            NONE if used is None else f"{used:.2f}",
            NONE if paid is None else f"{paid:.2f}",
        ]

    def _usage(self, method: str, point: Point) -> Markup:
        codes = point.codes or {}
        histograms = codes.get("histogram") or []
        sizes = [round(2**bits) for bits in codes.get("paid_bits") or []]
        usages = codes.get("usage") or [None] * len(histograms)
        figures = []
        for index, counts in enumerate(histograms[:MOST_CODEBOOKS]):
            plot = usage_plot(counts, self.palette.color(method), f"Use of codebook {index} of {method}")
            size = sizes[index] if index < len(sizes) else None
            grouped = size is not None and size > len(counts) > 0
            caption = f"codebook {index}"
            caption += f", {size:,} entries" if size is not None else ""
            caption += f" in {len(counts)} groups of neighbours" if grouped else ""
            usage = usages[index]
            caption += f", {100 * usage:.1f} % used" if usage is not None else ""
            lost = element("p", "not counted", class_="lost")
            figures.append(element("figure", plot or lost, element("figcaption", caption)))
        more = len(histograms) - len(figures)
        refused = (codes.get("statistics") or {}).get("refused") or []
        return joined(
            element("h3", self.palette.name(method), f" at {rate_text(point.rate)} {self.results.rate_unit}"),
            element("p", "How often each entry occurs, most used first; dashed: even use.", class_="soft"),
            element("div", *figures, class_="usage"),
            element("p", f"{_count(more, 'further codebook')} not shown.", class_="soft") if more else None,
            *(element("p", reason, class_="soft") for reason in refused),
        )

    # What is missing, and where the figures come from

    def _left_out(self) -> Markup | None:
        shown = []
        for title, reasons in (
            ("Metrics and candidates", self.results.left_out),
            ("Damaged files", self.results.damaged),
            ("Files that the protocol excludes", self.results.excluded),
        ):
            if reasons:
                listed = [part for name, why in reasons.items() for part in (element("dt", name), element("dd", why))]
                shown.append(joined(element("h3", title), element("dl", *listed)))
        return joined(*shown) if shown else None

    def _protocol(self) -> Markup | None:
        facts = self.results.protocol
        if not facts:
            return None
        settings = {**facts["preprocessing"], **{f"metric {name}": value for name, value in facts["metrics"].items()}}
        return joined(
            element("p", f"{facts['title']}. Data: {facts['data']}."),
            element("h3", "Settings"),
            element("dl", *_listed({name: "as usual" if value == {} else value for name, value in settings.items()})),
            element("h3", "Sources"),
            element("ul", *(element("li", source) for source in facts["sources"])),
            element("h3", "What is not as in the sources"),
            element("ul", *(element("li", difference) for difference in facts["differences"])),
        )

    def _provenance(self) -> Markup:
        groups = {
            "Data": self.results.data,
            "Seeds": self.results.seeds,
            "Machine": self.results.machine,
            "Versions": self.results.versions,
        }
        shown = [
            joined(element("h3", title), element("dl", *_listed(values))) for title, values in groups.items() if values
        ]
        if self.results.variants:
            variants = [
                joined(element("h4", method), element("dl", *_listed(values)))
                for method, values in self.results.variants.items()
            ]
            shown.append(element("details", element("summary", "Tokenizers and their weights"), *variants))
        identities = [
            part
            for points in self.methods.values()
            for point in points
            for part in (element("dt", point.label), element("dd", point.identity))
        ]
        shown.append(
            element("details", element("summary", "What decides each candidate's output"), element("dl", *identities))
        )
        return joined(*shown)


def _listed(values: dict[str, Any], prefix: str = "") -> Iterator[Markup]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _listed(value, f"{prefix}{name} ")
        elif value not in (None, "", (), []):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield element("dt", f"{prefix}{name}".replace("_", " "))
            yield element("dd", text)


def _cell(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return NONE
    undefined = element("small", f"no figure for {_count(interval.undefined, 'file')}") if interval.undefined else None
    if interval.value is None:
        return joined(NONE, undefined)
    if interval.low is None or interval.high is None:
        return joined(f"{interval.value:,.{digits}f}", undefined)
    bounds = element("small", f"{interval.low:,.{digits}f} to {interval.high:,.{digits}f}")
    return joined(f"{interval.value:,.{digits}f}", bounds, undefined)


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mean(values: list[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    if not known or len(known) < len(values or ()):
        return None
    return sum(known) / len(known)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
