"""How far each tokenizer's curve is from every other curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.bench.results import Point
from zoo.bench.statistics import Curve, bd_metric, bd_rate, rate_at
from zoo.errors import InputError

NOT_DEFINED = "the metric is not defined for these items"


def compare(points: Sequence[Point], metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `Results.comparisons`: over mean bytes per item, for metrics of items that have a better direction.

    metrics: facts by name, as `Results.metrics` has them.
    """
    methods: dict[str, list[Point]] = {}
    for point in points:
        methods.setdefault(point.method, []).append(point)
    return [
        {
            "metric": name,
            "method": method,
            "reference": reference,
            "reference_is_baseline": methods[reference][0].baseline,
            **compare_methods(methods[method], methods[reference], name),
        }
        for name, facts in metrics.items()
        if facts["per_item"] and facts["higher_is_better"] is not None
        for method, own in methods.items()
        if not own[0].baseline
        for reference in methods
        if reference != method
    ]


def compare_methods(own: Sequence[Point], others: Sequence[Point], metric: str) -> dict[str, Any]:
    """Compare the points of two methods by a metric."""
    reference = curve_of(others, metric)
    if len(own) == 1:
        value, num_bytes = own[0].metrics[metric].value, own[0].bytes
        if value is None:
            return {"kind": "point", "label": own[0].label, "rate_ratio": None, "reason": NOT_DEFINED}
        ratio, reason = figure_or_reason(lambda: rate_at(reference, value) / num_bytes)
        return {"kind": "point", "label": own[0].label, "rate_ratio": ratio, "reason": reason}
    curve = curve_of(own, metric)
    rate, reason = figure_or_reason(lambda: bd_rate(curve, reference))
    difference, other_reason = figure_or_reason(lambda: bd_metric(curve, reference))
    return {"kind": "bd", "bd_rate": rate, "bd_metric": difference, "reason": reason or other_reason}


def curve_of(points: Sequence[Point], metric: str) -> Curve:
    """Return the curve through the points that have the figure."""
    known = [(point.bytes, value) for point in points if (value := point.metrics[metric].value) is not None]
    return Curve([num_bytes for num_bytes, _ in known], [value for _, value in known])


def figure_or_reason(figure: Callable[[], float]) -> tuple[float | None, str | None]:
    """Return a figure, or why there is none."""
    try:
        return figure(), None
    except InputError as error:
        return None, str(error)
