"""Drawings as inline SVG: curves with intervals, the use of a codebook, and traces of proteins.

A page that holds them needs `STYLE`, whose variables are the colours, so that they follow a dark or a light background.
A drawing is 400 units wide, about the width of a phone in pixels, so that its letters are as large there as the page's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.pictures.markup import Markup, element
from zoo.pictures.structures import Bond, trace_bonds

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 40
TRACE_MARGIN = 12
LOWEST_TRACE = 120  # units of height
COLORS = 6  # of curves, and as many of baselines: `--t0`, `--b0`, ... in the style
LAYERS = 5  # of depth in a drawing of traces
MARKS = ("circle", "square", "diamond", "triangle")


class Palette:
    """One colour and one mark for each curve, the same in a whole document.

    Args:
        baselines: names of the curves in order, each with whether it is a baseline; baselines have dashed lines and
            hollow marks.
    """

    def __init__(self, baselines: Mapping[str, bool]):
        self.baselines = dict(baselines)
        self._number: dict[str, int] = {}
        for kind in (False, True):
            members = [name for name, is_baseline in self.baselines.items() if is_baseline is kind]
            self._number |= {name: number for number, name in enumerate(members)}

    def color(self, name: str) -> str:
        """Return the curve's colour as a variable of the style."""
        kind = "b" if self.baselines[name] else "t"
        return f"var(--{kind}{self._number[name] % COLORS})"

    def mark(self, name: str, x: float, y: float, size: float = 4.5, *children: Markup) -> Markup:
        """Draw the curve's mark with its centre at `x`, `y`."""
        number = self._number[name]
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

    def group(self, name: str, *children: Markup) -> Markup:
        """Draw parts of a curve in its colour."""
        kind = "baseline" if self.baselines[name] else "tokenizer"
        return element("g", *children, class_=kind, style=f"--c:{self.color(name)}")

    def name(self, name: str) -> Markup:
        """Write the curve's name in its colour."""
        return element("b", name, class_="curve-name", style=f"--c:{self.color(name)}")

    def legend(self, names: Sequence[str]) -> Markup:
        """List curves with their marks."""

        def entry(name: str) -> Markup:
            line = element("line", class_="curve", x1=0, y1=6, x2=28, y2=6)
            drawn = element(
                "svg", self.group(name, line, self.mark(name, 14, 6, 4)), viewBox="0 0 28 12", aria_hidden="true"
            )
            return element("li", drawn, name)

        return element("ul", *map(entry, names), class_="legend")


# Curves with intervals


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a curve.

    Attributes:
        x, y: its place.
        low, high: ends of the interval of `y`; None draws no bar.
        text: shown when a pointer rests on the mark.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    text: str = ""


def curve_plot(
    curves: Mapping[str, Sequence[CurvePoint]], palette: Palette, *, x_label: str, description: str
) -> Markup:
    """Draw curves through points with their intervals.

    The horizontal axis is logarithmic where the largest `x` is at least eight times the smallest.

    Args:
        curves: points by name, each curve from its smallest `x` to its largest; at least one point in all. The first
            curves are drawn last, on top.
        palette: colours and marks of these names.
        x_label: what the horizontal axis counts.
        description: what the drawing shows, for readers who cannot see it.
    """
    points = [point for members in curves.values() for point in members]
    places = [point.x for point in points]
    ends = [end for point in points for end in (point.low, point.y, point.high) if end is not None]
    ends = [end for end in ends if math.isfinite(end)]
    x_axis = _Axis(min(places), max(places), LEFT, WIDTH - RIGHT, log=0 < 8 * min(places) <= max(places))
    y_axis = _Axis(min(ends), max(ends), HEIGHT - BOTTOM, TOP)
    drawn = [_frame(x_axis, y_axis, f"{x_label}{' (logarithmic)' if x_axis.log else ''}")]
    for name, members in reversed(list(curves.items())):
        corners = [(x_axis(point.x), y_axis(point.y)) for point in members]
        bars, marks = [], []
        for point, (x, y) in zip(members, corners, strict=True):
            if point.low is not None and point.high is not None:
                low, high = y_axis(point.low), y_axis(point.high)
                path = f"M{_short(x)} {_short(low)}V{_short(high)}" + _caps(x, low, high)
                bars.append(element("path", class_="bar", d=path))
            marks.append(palette.mark(name, x, y, 4.5, element("title", point.text)))
        line = [element("polyline", class_="curve", points=_polygon(corners))] if len(corners) > 1 else []
        drawn.append(palette.group(name, *line, *bars, *marks))
    return element("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)


class _Axis:
    """An axis that turns values into places and has ticks at round values."""

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
    """Return round values between two positive bounds, about eight at most."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
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


def usage_plot(histogram: Sequence[float], color: str, description: str) -> Markup | None:
    """Draw how often the entries of a codebook occur, most used first, as multiples of even use.

    Args:
        histogram: counts of the entries, or of groups of equally many.
        color: a colour as CSS has it.
        description: what the drawing shows, for readers who cannot see it.

    Returns:
        None where nothing was counted.
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
        aria_label=description,
        style=f"--c:{color}",
    )


# Traces of proteins


def trace_plot(chains: Sequence[tuple[Tensor, str]], description: str) -> Markup:
    """Draw chains on one another as curves through their CA atoms.

    What is nearer is drawn wider and over what is farther away; the first chain is a wide band below the others.

    Args:
        chains: CA atoms as `zoo.pictures.structures` has them, each chain with its colour as CSS has it.
        description: what the drawing shows, for readers who cannot see it.
    """
    bonds = trace_bonds([chain for chain, _ in chains])
    corners = np.concatenate([bond.points for bond in bonds]) if bonds else np.zeros((1, 2))
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = (WIDTH - 2 * TRACE_MARGIN) / max(float((high - low).max()), 1.0)
    height = max(LOWEST_TRACE, float(high[1] - low[1]) * scale + 2 * TRACE_MARGIN)
    middle = (low + high) / 2
    layers: dict[tuple[int, int], list[Bond]] = {}
    for bond in bonds:
        layers.setdefault((min(int(bond.depth * LAYERS), LAYERS - 1), bond.chain), []).append(bond)

    def path(members: list[Bond]) -> str:
        written: list[str] = []
        end = None
        for bond in sorted(members, key=lambda bond: bond.residue):
            places = (bond.points - middle) * (scale, -scale) + (WIDTH / 2, height / 2)
            start, *curve = (f"{_short(x)} {_short(y)}" for x, y in places.tolist())
            written += [] if end == bond.residue else [f"M{start}"]
            written.append("C" + " ".join(curve))
            end = bond.residue + 1
        return "".join(written)

    drawn = [
        element(
            "path",
            class_="trace",
            d=path(members),
            stroke=chains[number][1],
            stroke_width=_short(members[len(members) // 2].width),
            opacity=_short(1.0 if number == 0 else 0.5 + 0.5 * layer / (LAYERS - 1)),
        )
        for (layer, number), members in sorted(layers.items())
    ]
    return element("svg", *drawn, viewBox=f"0 0 {WIDTH} {_short(height)}", role="img", aria_label=description)


def _polygon(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in places)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# For the page that holds the drawings; the page takes its own colours from the same variables.
STYLE = """
:root {
  --paper: #fcfcfa; --ink: #16181d; --soft: #5a606b; --line: #dcdcd6; --wash: #f1f1ec; --ghost: #c6c6be;
  --t0: #0a5fc2; --t1: #c4430a; --t2: #08794c; --t3: #8438ba; --t4: #bd1e66; --t5: #00757f;
  --b0: #6c727d; --b1: #8c6a12; --b2: #7b4a38; --b3: #4e7350; --b4: #5c5f9e; --b5: #94567c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --ink: #e9e9e4; --soft: #a0a6b0; --line: #33373f; --wash: #1e2127; --ghost: #4b515c;
    --t0: #6cb0ff; --t1: #ff8f5a; --t2: #4fcf96; --t3: #c995f5; --t4: #ff7fb3; --t5: #4fd0da;
    --b0: #9aa1ad; --b1: #d1ae57; --b2: #c79683; --b3: #93bd95; --b4: #a3a7e6; --b5: #d89cc0;
  }
}
.curve-name { font-weight: 650; color: var(--c); white-space: nowrap; }
@media (max-width: 40rem) { .curve-name { white-space: normal; } }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text {
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  fill: var(--soft);
}
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .bar { stroke: var(--c); stroke-width: 1.25; opacity: .55; }
svg .mark { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
svg .baseline .curve { stroke-width: 1.5; stroke-dasharray: 5 3; }
svg .baseline .mark { fill: var(--paper); stroke: var(--c); stroke-width: 1.5; }
svg .area { fill: color-mix(in srgb, var(--c) 45%, transparent); }
svg .trace { fill: none; stroke-linecap: round; stroke-linejoin: round; }
.legend {
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; margin: .4rem 0 0; padding: 0;
  font-size: .85rem;
}
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend svg { width: 28px; height: 12px; flex: none; }
"""
