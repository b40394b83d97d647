"""Who wins at which range of rates, and where nobody does.

A rate is taken as a budget: a curve's figure at a rate lies between those of its neighbouring points, on the
logarithm of the rate, and above its highest rate it stays what it was there. Below its lowest it has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.bench.results import Interval, Point, Results

STEPS = 240  # rates looked at, between the lowest and the highest
NARROWEST = 0.02  # of the range of rates: what is less is no range of its own
RESAMPLES = 1000
MOST_ELSEWHERE = 4  # tokenizers that a sentence names though they win nowhere


@dataclass(frozen=True, kw_only=True)
class Span:
    """A range of rates, in the results' `rate_unit`, and who is best there.

    families: one that wins, or several of which none is shown to be better than the best of them.
    alone: the only one that has a figure at all.
    """

    low: float
    high: float
    families: tuple[str, ...]
    alone: bool = False


def families_of(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The curves: tokenizers first, each one's points from the lowest rate to the highest."""
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.baseline):
        families.setdefault(point.family, []).append(point)
    return {family: sorted(members, key=lambda point: point.rate) for family, members in families.items()}


def spans(results: Results, metric: str) -> list[Span]:
    """The ranges of rates from the lowest to the highest; none where the metric has no better direction or no figure.

    Two curves tie where the 95 % bootstrap interval of the mean difference between them, file by file, has zero in
    it. Where the files have no figures of their own (a figure of the set), they tie where their intervals overlap.
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
    """The `spans` of a metric in words, in pieces; a family's name is a tuple of one."""
    if results.metrics[metric]["higher_is_better"] is None:
        return ["Neither direction is better: there is nothing to win, see the plot."]
    if not ranges:
        return ["Nobody has a figure."]
    if len(ranges) == 1 and ranges[0].alone:
        return ["Only ", (ranges[0].families[0],), " has a figure: there is nothing to compare."]
    pieces: list[str | tuple[str]] = []
    for number, span in enumerate(ranges):
        again = number and span.families == ranges[number - 1].families
        if again:
            pieces.append(" and")
        else:
            pieces += ["; "] if number else []
            pieces += _named(span.families)
        pieces.append(" is alone" if span.alone else " wins" if len(span.families) == 1 else " tie")
        unit = f" {results.rate_unit}" if number == 0 else ""
        pieces.append(f" {_where(span, number == 0, number == len(ranges) - 1)}{unit}")
    return [*pieces, "."]


def elsewhere(results: Results, metric: str, ranges: Sequence[Span]) -> list[str | tuple[str]]:
    """Of each tokenizer that no span names, its figure at its highest rate, and the best other one there; as above."""
    what, unit = results.metrics[metric], results.rate_unit
    if not ranges:
        return []
    curves = _curves(results, metric)
    draws = _draws(results, curves)
    tokenizers = {point.family for point in results.points if not point.baseline}
    named = {family for span in ranges for family in span.families}
    pieces: list[str | tuple[str]] = []
    for own in [curve for curve in curves if curve.family in tokenizers - named][:MOST_ELSEWHERE]:
        rate = own.rates[-1]
        others = [curve for curve in curves if curve is not own and curve.rates[0] <= rate]
        if not others:
            continue
        best = max(others, key=lambda curve: float(curve.at(rate, curve.means)))
        had, best_had = (
            f"{curve.sign * float(curve.at(rate, curve.means)):,.{what['digits']}f}" for curve in (own, best)
        )
        tied, _ = _best_at(rate, curves, draws)
        standing = "." if own.family not in tied else ", and wins there." if len(tied) == 1 else ", a tie."
        pieces += [" "] if pieces else []
        pieces += [f"At {rate_text(rate)} {unit} ", (own.family,), f" has {had} against "]
        pieces += [(best.family,), f" with {best_had} {what['unit']}".rstrip() + standing]
    return pieces


def rate_text(rate: float) -> str:
    """Two digits that count, and more where the number has more before its point."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}" if rate >= 0.001 else f"{rate:.1e}"


def _curves(results: Results, metric: str) -> list[_Curve]:
    better = bool(results.metrics[metric]["higher_is_better"])
    return [
        _Curve(family, members, metric, better)
        for family, points in families_of(results.points).items()
        if (members := [point for point in points if point.rate > 0 and _value(point, metric) is not None])
    ]


def _draws(results: Results, curves: list[_Curve]) -> np.ndarray | None:
    """How often each file is drawn in each resample, `[RESAMPLES, sources]`, all curves' figures in that order."""
    sources = sorted({source for curve in curves for source in curve.sources})
    for curve in curves:
        curve.align(sources)
    if not sources:
        return None
    random = np.random.default_rng(results.seeds.get("bootstrap", 0))
    return random.multinomial(len(sources), np.full(len(sources), 1 / len(sources)), RESAMPLES)


class _Curve:
    """One family's figures against the logarithm of the rate, turned so that more is better."""

    def __init__(self, family: str, points: list[Point], metric: str, higher_is_better: bool):
        self.family = family
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
        """The figures of files as `[points, sources]`, NaN where a file has none at some point."""
        self.figures = self.sign * np.array(
            [[items[source] if source in self.sources else math.nan for source in sources] for items in self.items]
        )

    def at(self, rate: float, values: np.ndarray) -> np.ndarray:
        """`values`, one a point, at a rate that is no lower than the lowest."""
        log = math.log(rate)
        right = int(np.searchsorted(self.logs, log - 1e-9))
        if right == 0 or right == len(self.logs):
            return values[min(right, len(self.logs) - 1)]
        span = self.logs[right] - self.logs[right - 1]
        share = (log - self.logs[right - 1]) / span
        return (1 - share) * values[right - 1] + share * values[right]

    def _bounds(self, interval: Interval) -> tuple[float, float]:
        ends = [self.sign * interval.value if end is None else self.sign * end for end in (interval.low, interval.high)]
        return min(ends), max(ends)


def _value(point: Point, metric: str) -> float | None:
    interval = point.metrics.get(metric)
    value = None if interval is None else interval.value
    return value if value is not None and math.isfinite(value) else None


def _best_at(rate: float, curves: list[_Curve], draws: np.ndarray | None) -> tuple[tuple[str, ...], bool]:
    """The families that none is shown to be better than, and whether there is only one at all."""
    there = [curve for curve in curves if curve.rates[0] <= rate * (1 + 1e-9)]
    best = max(there, key=lambda curve: float(curve.at(rate, curve.means)))
    tied = [curve.family for curve in there if curve is best or not _is_better(best, curve, rate, draws)]
    return tuple(tied), len(there) == 1


def _is_better(best: _Curve, other: _Curve, rate: float, draws: np.ndarray | None) -> bool:
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
    """Neighbours of one outcome joined, and ties that follow each other; what is too narrow goes to its neighbour."""
    ranges: list[Span] = []
    for index, (families, alone) in enumerate(found):
        end = rates[min(index + 1, len(rates) - 1)]
        _append(ranges, Span(low=rates[index], high=end, families=families, alone=alone))
    least = NARROWEST * math.log(rates[-1] / rates[0])
    kept: list[Span] = []
    for span in ranges:
        if kept and math.log(span.high / span.low) < least:
            last = kept.pop()
            span = Span(low=last.low, high=span.high, families=last.families, alone=last.alone)
        _append(kept, span)
    return kept


def _append(ranges: list[Span], span: Span) -> None:
    last = ranges[-1] if ranges else None
    same = last is not None and (last.families, last.alone) == (span.families, span.alone)
    ties = last is not None and len(last.families) > 1 and len(span.families) > 1
    if same or ties:
        families = tuple(dict.fromkeys(last.families + span.families))
        ranges[-1] = Span(low=last.low, high=span.high, families=families, alone=last.alone)
    else:
        ranges.append(span)


def _named(families: tuple[str, ...]) -> list[str | tuple[str]]:
    shown = families if len(families) <= 4 else families[:3]
    pieces: list[str | tuple[str]] = []
    for number, family in enumerate(shown):
        last = number == len(families) - 1
        pieces += ([" and " if last else ", "] if number else []) + [(family,)]
    return pieces if len(shown) == len(families) else [*pieces, f" and {len(families) - len(shown)} others"]


def _where(span: Span, first: bool, last: bool) -> str:
    low, high = rate_text(span.low), rate_text(span.high)
    if first and last:
        return f"at every rate, {low} to {high}" if low != high else f"at {low}"
    if first:
        return f"below {high}"
    return f"above {low}" if last else f"from {low} to {high}"
