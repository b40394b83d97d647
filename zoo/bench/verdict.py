"""Which method wins at which range of rates, and where none does.

A rate is a budget: a curve's figure at a rate is interpolated between its neighbouring points, on the logarithm of the
rate, and above its highest rate it stays the same. Below its lowest rate it has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.bench.results import Interval, Point, Results

STEPS = 240  # rates that are examined, from the lowest to the highest
NARROWEST = 0.02  # share of all rates; a narrower range is joined to its neighbour
RESAMPLES = 1000
MOST_ELSEWHERE = 4  # tokenizers that win nowhere but are named nevertheless


@dataclass(frozen=True, kw_only=True)
class Span:
    """A range of rates and what is best there.

    Attributes:
        low, high: ends of the range, in the results' `rate_unit`.
        methods: one that wins, or several of which none is shown to be better than the others.
        alone: whether no other method has a figure there.
    """

    low: float
    high: float
    methods: tuple[str, ...]
    alone: bool = False


def points_by_method(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Group points by method: tokenizers first, the points of each from the lowest rate to the highest."""
    methods: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.baseline):
        methods.setdefault(point.method, []).append(point)
    return {method: sorted(members, key=lambda point: point.rate) for method, members in methods.items()}


def spans(results: Results, metric: str) -> list[Span]:
    """Return the ranges of rates from the lowest to the highest, and what is best in each.

    Two curves tie where the 95 % bootstrap interval of the mean difference between them, file by file, contains zero.
    Where the items have no figures (a figure of the set, or items that were not kept), they tie where their intervals
    overlap. There is no range where neither direction of the metric is better, or where it has no figure.
    """
    if results.metrics[metric]["higher_is_better"] is None:
        return []
    curves = _curves(results, metric)
    if not curves:
        return []
    draws = _draws(results, curves)
    marks = sorted({rate for curve in curves for rate in curve.rates})
    rates = sorted({*marks, *np.geomspace(marks[0], marks[-1], STEPS).tolist()})
    found = [_best_at(rate, curves, draws) for rate in rates]
    return _merged(rates, found)


def sentence(results: Results, metric: str, ranges: Sequence[Span]) -> list[str | tuple[str]]:
    """Say the `spans` of a metric in words, in pieces; the name of a method is a tuple of one."""
    if results.metrics[metric]["higher_is_better"] is None:
        return ["Neither direction is better, so there is nothing to win; see the plot."]
    if not ranges:
        return ["No method has a figure."]
    if len(ranges) == 1 and ranges[0].alone:
        return ["Only ", (ranges[0].methods[0],), " has a figure: there is nothing to compare."]
    pieces: list[str | tuple[str]] = []
    for number, span in enumerate(ranges):
        again = number and span.methods == ranges[number - 1].methods
        if again:
            pieces.append(" and")
        else:
            pieces += ["; "] if number else []
            pieces += _named(span.methods)
        pieces.append(" is alone" if span.alone else " wins" if len(span.methods) == 1 else " tie")
        unit = f" {results.rate_unit}" if number == 0 else ""
        pieces.append(f" {_where(span, number == 0, number == len(ranges) - 1)}{unit}")
    return [*pieces, "."]


def elsewhere(results: Results, metric: str, ranges: Sequence[Span]) -> list[str | tuple[str]]:
    """Compare each tokenizer that no span names with the best other method at its highest rate; as `sentence`."""
    facts, unit = results.metrics[metric], results.rate_unit
    if not ranges:
        return []
    curves = _curves(results, metric)
    draws = _draws(results, curves)
    tokenizers = {point.method for point in results.points if not point.baseline}
    named = {method for span in ranges for method in span.methods}
    pieces: list[str | tuple[str]] = []
    for own in [curve for curve in curves if curve.method in tokenizers - named][:MOST_ELSEWHERE]:
        rate = own.rates[-1]
        others = [curve for curve in curves if curve is not own and curve.rates[0] <= rate]
        if not others:
            continue
        best = max(others, key=lambda curve: float(curve.at(rate, curve.means)))
        had, best_had = (
            f"{curve.sign * float(curve.at(rate, curve.means)):,.{facts['digits']}f}" for curve in (own, best)
        )
        tied, _ = _best_at(rate, curves, draws)
        standing = "." if own.method not in tied else ", and wins there." if len(tied) == 1 else ", a tie."
        pieces += [" "] if pieces else []
        pieces += [f"At {rate_text(rate)} {unit} ", (own.method,), f" has {had} against "]
        pieces += [(best.method,), f" with {best_had} {facts['unit']}".rstrip() + standing]
    return pieces


def rate_text(rate: float) -> str:
    """Write a rate with two significant digits, or all digits before the point."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}" if rate >= 0.001 else f"{rate:.1e}"


def _curves(results: Results, metric: str) -> list[_MethodCurve]:
    better = bool(results.metrics[metric]["higher_is_better"])
    return [
        _MethodCurve(method, members, metric, better)
        for method, points in points_by_method(results.points).items()
        if (members := [point for point in points if point.rate > 0 and _value(point, metric) is not None])
    ]


def _draws(results: Results, curves: list[_MethodCurve]) -> np.ndarray | None:
    """Return how often each file is drawn in each resample, `[RESAMPLES, sources]`, and sort the curves' figures so."""
    sources = sorted({source for curve in curves for source in curve.sources})
    for curve in curves:
        curve.align(sources)
    if not sources:
        return None
    random = np.random.default_rng(results.seeds.get("bootstrap", 0))
    return random.multinomial(len(sources), np.full(len(sources), 1 / len(sources)), RESAMPLES)


class _MethodCurve:
    """The figures of one method against the logarithm of the rate, with signs so that more is better."""

    def __init__(self, method: str, points: list[Point], metric: str, higher_is_better: bool):
        self.method = method
        self.sign = 1.0 if higher_is_better else -1.0
        self.rates = [point.rate for point in points]
        self.logs = np.log(self.rates)
        self.intervals = [point.metrics[metric] for point in points]
        self.means = self.sign * np.array([interval.value for interval in self.intervals])
        self.bounds = [self._bounds(interval) for interval in self.intervals]
        self.items = [
            {item.source: item.metrics[metric] for item in point.items if item.metrics.get(metric) is not None}
            for point in points
        ]
        self.sources = set.intersection(*map(set, self.items))

    def align(self, sources: list[str]) -> None:
        """Lay out the figures of files as `[points, sources]`, NaN where a file has none at some point."""
        self.figures = self.sign * np.array(
            [[items[source] if source in self.sources else math.nan for source in sources] for items in self.items]
        )

    def at(self, rate: float, values: np.ndarray) -> np.ndarray:
        """Interpolate `values`, one for each point, at a rate that is not below the lowest."""
        log = math.log(rate)
        right = int(np.searchsorted(self.logs, log - 1e-9))
        if right == 0 or right == len(self.logs):
            return values[min(right, len(self.logs) - 1)]
        span = self.logs[right] - self.logs[right - 1]
        share = (log - self.logs[right - 1]) / span
        return (1 - share) * values[right - 1] + share * values[right]

    def _bounds(self, interval: Interval) -> tuple[float, float]:
        ends = (interval.value if end is None else end for end in (interval.low, interval.high))
        turned = [self.sign * end for end in ends if end is not None]
        return min(turned), max(turned)


def _value(point: Point, metric: str) -> float | None:
    interval = point.metrics.get(metric)
    value = None if interval is None else interval.value
    return value if value is not None and math.isfinite(value) else None


def _best_at(rate: float, curves: list[_MethodCurve], draws: np.ndarray | None) -> tuple[tuple[str, ...], bool]:
    """Return the methods that no other is shown to be better than, and whether there is only one."""
    there = [curve for curve in curves if curve.rates[0] <= rate * (1 + 1e-9)]
    best = max(there, key=lambda curve: float(curve.at(rate, curve.means)))
    tied = [curve.method for curve in there if curve is best or not _is_better(best, curve, rate, draws)]
    return tuple(tied), len(there) == 1


def _is_better(best: _MethodCurve, other: _MethodCurve, rate: float, draws: np.ndarray | None) -> bool:
    if draws is not None:
        difference = best.at(rate, best.figures) - other.at(rate, other.figures)
        known = np.isfinite(difference)
        if known.sum() > 1:
            weights = draws[:, known]
            counts = weights.sum(axis=1)
            means = (weights @ difference[known])[counts > 0] / counts[counts > 0]
            return bool(np.quantile(means, 0.025) > 0)
    lowest = float(best.at(rate, np.array([bounds[0] for bounds in best.bounds])))
    highest = float(other.at(rate, np.array([bounds[1] for bounds in other.bounds])))
    return lowest > highest


def _merged(rates: list[float], found: list[tuple[tuple[str, ...], bool]]) -> list[Span]:
    """Join neighbouring rates with the same outcome, and neighbouring ties; a range too narrow joins its neighbour."""
    ranges: list[Span] = []
    for index, (methods, alone) in enumerate(found):
        end = rates[min(index + 1, len(rates) - 1)]
        _append(ranges, Span(low=rates[index], high=end, methods=methods, alone=alone))
    least = NARROWEST * math.log(rates[-1] / rates[0])
    kept: list[Span] = []
    for span in ranges:
        if kept and math.log(span.high / span.low) < least:
            last = kept.pop()
            span = Span(low=last.low, high=span.high, methods=last.methods, alone=last.alone)
        _append(kept, span)
    return kept


def _append(ranges: list[Span], span: Span) -> None:
    if not ranges:
        ranges.append(span)
        return
    last = ranges[-1]
    is_same = (last.methods, last.alone) == (span.methods, span.alone)
    if is_same or (len(last.methods) > 1 and len(span.methods) > 1):
        methods = tuple(dict.fromkeys(last.methods + span.methods))
        ranges[-1] = Span(low=last.low, high=span.high, methods=methods, alone=last.alone)
    else:
        ranges.append(span)


def _named(methods: tuple[str, ...]) -> list[str | tuple[str]]:
    shown = methods if len(methods) <= 4 else methods[:3]
    pieces: list[str | tuple[str]] = []
    for number, method in enumerate(shown):
        last = number == len(methods) - 1
        pieces += ([" and " if last else ", "] if number else []) + [(method,)]
    return pieces if len(shown) == len(methods) else [*pieces, f" and {len(methods) - len(shown)} others"]


def _where(span: Span, first: bool, last: bool) -> str:
    low, high = rate_text(span.low), rate_text(span.high)
    if first and last:
        return f"at every rate, {low} to {high}" if low != high else f"at {low}"
    if first:
        return f"below {high}"
    return f"above {low}" if last else f"from {low} to {high}"
