"""The report's drawings as inline SVG: rate against distortion, use of codebooks, superposed chains.

Colours are the page's own, by the variables of its style, so that they follow a dark or a light background. A drawing
is 400 units wide, about the width of a phone in pixels, so that its letters are as large there as the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.bench.page import Markup, element
from zoo.bench.results import Interval, Point
from zoo.bench.verdict import rate_text

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 40
COLORS = 6  # of tokenizers, and as many of baselines: `--t0`, `--b0`, ... in the style
LAYERS = 5  # of depth, in a drawing of chains
MARKS = ("circle", "square", "diamond", "triangle")


class Palette:
    """One colour and one mark for each curve, the same in the whole report."""

    def __init__(self, families: dict[str, list[Point]]):
        self.baseline = {family: points[0].baseline for family, points in families.items()}
        self._number = {}
        for kind in (False, True):
            members = [family for family, baseline in self.baseline.items() if baseline is kind]
            self._number |= {family: number for number, family in enumerate(members)}

    def color(self, family: str) -> str:
        kind = "b" if self.baseline[family] else "t"
        return f"var(--{kind}{self._number[family] % COLORS})"

    def mark(self, family: str, x: float, y: float, size: float = 4.5, *children: Markup) -> Markup:
        number = self._number[family]
        kind = MARKS[(number + number // COLORS) % len(MARKS)]
        if kind == "circle":
            return element("circle", *children, class_="mark", cx=_short(x), cy=_short(y), r=size)
        reach = {"square": 0.9, "diamond": 1.25, "triangle": 1.25}[kind] * size
        corners = {
            "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
            "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
            "triangle": ((0, -1), (1, 0.8), (-1, 0.8)),
        }[kind]
        points = _polygon([(x + reach * dx, y + reach * dy) for dx, dy in corners])
        return element("polygon", *children, class_="mark", points=points)

    def group(self, family: str, *children: Markup) -> Markup:
        kind = "baseline" if self.baseline[family] else "tokenizer"
        return element("g", *children, class_=kind, style=f"--c:{self.color(family)}")

    def name(self, family: str) -> Markup:
        """The family's name in its colour."""
        return element("b", family, class_="family", style=f"--c:{self.color(family)}")

    def legend(self, families: Sequence[str]) -> Markup:
        def entry(family: str) -> Markup:
            line = element("line", class_="curve", x1=0, y1=6, x2=28, y2=6)
            drawn = element(
                "svg", self.group(family, line, self.mark(family, 14, 6, 4)), viewBox="0 0 28 12", aria_hidden="true"
            )
            return element("li", drawn, family)

        return element("ul", *map(entry, families), class_="legend")


# Rate against distortion


def rate_plot(
    families: dict[str, list[Point]], metric: str, palette: Palette, rate_unit: str, what: dict[str, object]
) -> Markup | None:
    """A metric of all curves against the rate, with the 95 % intervals; None where no point has a figure.

    Args:
        families: as `families_of` gives them.
        metric: key of the points' metrics.
        palette: of these families.
        rate_unit: what the rate counts.
        what: the metric's label, unit and digits.
    """
    curves = {family: [point for point in points if _is_known(point, metric)] for family, points in families.items()}
    curves = {family: points for family, points in curves.items() if points}
    if not curves:
        return None
    rates = [point.rate for points in curves.values() for point in points]
    ends = [end for points in curves.values() for point in points for end in _ends(point.metrics[metric])]
    x_axis = _Axis(min(rates), max(rates), LEFT, WIDTH - RIGHT, log=max(rates) >= 8 * min(rates))
    y_axis = _Axis(min(ends), max(ends), HEIGHT - BOTTOM, TOP)
    drawn = [_frame(x_axis, y_axis, f"{rate_unit}{' (logarithmic)' if x_axis.log else ''}")]
    for family, points in reversed(curves.items()):  # tokenizers last, on top
        places = [(x_axis(point.rate), y_axis(point.metrics[metric].value)) for point in points]
        bars, marks = [], []
        for point, (x, y) in zip(points, places, strict=True):
            interval = point.metrics[metric]
            if interval.low is not None and interval.high is not None:
                low, high = y_axis(interval.low), y_axis(interval.high)
                bars.append(
                    element("path", class_="bar", d=f"M{_short(x)} {_short(low)}V{_short(high)}" + _caps(x, low, high))
                )
            told = f"{point.label}: {_with_interval(interval, what)} at {rate_text(point.rate)} {rate_unit}"
            marks.append(palette.mark(family, x, y, 4.5, element("title", told)))
        line = [element("polyline", class_="curve", points=_polygon(places))] if len(places) > 1 else []
        drawn.append(palette.group(family, *line, *bars, *marks))
    summary = f"{what['label']} against {rate_unit} for {', '.join(curves)}; the figures are in the table of points"
    return element("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=summary)


class _Axis:
    """Values to places, and ticks at round values."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        self.log, self.start, self.end = log, start, end
        if log:
            margin = 0.04 * math.log(high / low)
            self.low, self.high = low * math.exp(-margin), high * math.exp(margin)
        else:
            margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
            self.low, self.high = low - margin, high + margin

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two bounds, at most about eight."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 8:
            break
    return ticks


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str) -> Markup:
    drawn = []
    ticks = y_axis.ticks()
    digits = max(0, 1 - math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 2
    texts = [f"{tick:,.{digits}f}" for tick in ticks]
    while digits and all(text.endswith("0") for text in texts):
        digits -= 1
        texts = [f"{tick:,.{digits}f}" for tick in ticks]
    for tick, text in zip(ticks, texts, strict=True):
        y = _short(y_axis(tick))
        drawn.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        drawn.append(element("text", text, x=LEFT - 6, y=_short(y_axis(tick) + 4), text_anchor="end"))
    bottom = HEIGHT - BOTTOM
    drawn.append(element("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom))
    for tick in x_axis.ticks():
        x = _short(x_axis(tick))
        drawn.append(element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4))
        drawn.append(element("text", f"{tick:,.4g}", x=x, y=bottom + 17, text_anchor="middle"))
    drawn.append(element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle"))
    return element("g", *drawn)


def _caps(x: float, *heights: float) -> str:
    return "".join(f"M{_short(x - 3)} {_short(y)}h6" for y in heights)


# Use of codebooks


def usage_plot(histogram: Sequence[float], color: str, title: str) -> Markup | None:
    """How often the entries of a codebook occur, most used first, as multiples of even use; None without a count.

    Args:
        histogram: counts of the entries, or of groups of equally many.
        color: of the style.
        title: what it is, for who cannot see it.
    """
    counts = np.sort(np.asarray(histogram, dtype=np.float64))[::-1]
    if counts.size == 0 or counts.sum() <= 0:
        return None
    relative = counts / counts.mean()
    width, height, top, bottom = 240, 96, 14, 4
    ceiling = max(float(relative[0]), 1.5)
    scale = (height - top - bottom) / ceiling
    step = width / counts.size
    edges = "".join(
        f"V{_short(height - bottom - value * scale)}H{_short(step * (index + 1))}"
        for index, value in enumerate(relative.tolist())
    )
    even = _short(height - bottom - scale)
    return element(
        "svg",
        element("path", class_="area", d=f"M0 {height - bottom}{edges}V{height - bottom}Z"),
        element("line", class_="axis", x1=0, x2=width, y1=height - bottom, y2=height - bottom),
        element("line", class_="axis", stroke_dasharray="3 3", x1=0, x2=width, y1=even, y2=even),
        element("text", f"most used: {relative[0]:,.1f} times even use", x=width, y=10, text_anchor="end"),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
        style=f"--c:{color}",
    )


# Superposed chains


def traces_plot(chains: Sequence[tuple[np.ndarray, str]], title: str) -> Markup:
    """Chains on one another, as lines through their CA atoms, seen from where the first is broadest.

    What is nearer is drawn thicker and over what is farther; the first as a wide band below the others.

    Args:
        chains: of each the CA atoms `[residues, 3]` in angstrom, NaN where one is absent, all in one frame of
            reference, and its colour in the style.
        title: what it is, for who cannot see it.
    """
    first = chains[0][0][np.isfinite(chains[0][0]).all(axis=1)]
    center = first.mean(axis=0)
    axes = np.linalg.svd(first - center, full_matrices=False)[2]  # [3, 3], from the longest
    turned = [((atoms - center) @ axes.T, color) for atoms, color in chains]
    seen = np.concatenate([atoms[np.isfinite(atoms).all(axis=1)] for atoms, _ in turned])
    low, high = seen.min(axis=0), seen.max(axis=0)
    scale = (WIDTH - 24) / max(high[0] - low[0], high[1] - low[1], 1.0)
    height = max(120.0, (high[1] - low[1]) * scale + 24)
    depth = np.linspace(low[2], high[2], LAYERS + 1)[1:-1]
    paths: dict[tuple[int, int], list[str]] = {}
    for number, (atoms, _) in enumerate(turned):
        x = 12 + (atoms[:, 0] - low[0]) * scale
        y = height / 2 - (atoms[:, 1] - (low[1] + high[1]) / 2) * scale
        pen = None
        for index in range(len(atoms) - 1):
            pair = atoms[index : index + 2]
            if not np.isfinite(pair).all() or np.linalg.norm(pair[1] - pair[0]) > 8:  # angstrom: a gap, no bond
                continue
            layer = int(np.searchsorted(depth, pair[:, 2].mean()))
            path = paths.setdefault((layer, number), [])
            if pen != (layer, index):
                path.append(f"M{_short(x[index])} {_short(y[index])}")
            path.append(f"L{_short(x[index + 1])} {_short(y[index + 1])}")
            pen = (layer, index + 1)
    drawn = [
        element(
            "path",
            class_="trace",
            d="".join(path),
            stroke=turned[number][1],
            stroke_width=_short(3 + 0.6 * layer if number == 0 else 1 + 0.4 * layer),
            opacity=_short(1.0 if number == 0 else 0.5 + 0.5 * layer / (LAYERS - 1)),
        )
        for (layer, number), path in sorted(paths.items())
    ]
    return element("svg", *drawn, viewBox=f"0 0 {WIDTH} {_short(height)}", role="img", aria_label=title)


# Numbers


def _is_known(point: Point, metric: str) -> bool:
    interval = point.metrics.get(metric)
    return interval is not None and interval.value is not None and math.isfinite(interval.value) and point.rate > 0


def _ends(interval: Interval) -> list[float]:
    return [end for end in (interval.low, interval.value, interval.high) if end is not None and math.isfinite(end)]


def _with_interval(interval: Interval, what: dict[str, object]) -> str:
    digits = int(what["digits"])
    text = f"{interval.value:,.{digits}f}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:,.{digits}f}, {interval.high:,.{digits}f}]"
    return f"{text} {what['unit']}".rstrip()


def _polygon(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in places)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
