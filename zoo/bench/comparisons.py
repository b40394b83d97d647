"""How far each tokenizer's curve is from every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.bench.results import Point
from zoo.bench.statistics import Curve, bd_metric, bd_rate, rate_at
from zoo.errors import InputError
from zoo.metrics import Metric


def compare(points: Sequence[Point], metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """`Results.comparisons`, over mean bytes an item, for the metrics of items of which more, or less, is better."""
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    return [
        {
            "metric": name,
            "family": family,
            "reference": reference,
            "reference_is_baseline": families[reference][0].baseline,
            **compare_families(families[family], families[reference], name),
        }
        for name, metric in metrics.items()
        if metric.per_item is not None and metric.higher_is_better is not None
        for family, own in families.items()
        if not own[0].baseline
        for reference in families
        if reference != family
    ]


def compare_families(own: Sequence[Point], others: Sequence[Point], metric: str) -> dict[str, Any]:
    reference = curve(others, metric)
    if len(own) == 1:
        value = own[0].metrics[metric].value
        ratio, reason = attempt(lambda: rate_at(reference, value) / own[0].bytes, value)
        return {"kind": "point", "label": own[0].label, "rate_ratio": ratio, "reason": reason}
    rate, reason = attempt(lambda: bd_rate(curve(own, metric), reference))
    difference, other_reason = attempt(lambda: bd_metric(curve(own, metric), reference))
    return {"kind": "bd", "bd_rate": rate, "bd_metric": difference, "reason": reason or other_reason}


def curve(points: Sequence[Point], metric: str) -> Curve:
    """The points that have the figure."""
    known = [(point.bytes, point.metrics[metric].value) for point in points if point.metrics[metric].value is not None]
    return Curve([num_bytes for num_bytes, _ in known], [value for _, value in known])


def attempt(figure: Any, needed: float | None = 0.0) -> tuple[float | None, str | None]:
    """The figure, or why there is none."""
    if needed is None:
        return None, "the metric is not defined for these items"
    try:
        return figure(), None
    except InputError as error:
        return None, str(error)
