"""Intervals of means, and distances between rate-distortion curves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import bootstrap
from torchmetrics import Metric

from zoo.bench.results import Interval
from zoo.errors import InputError

RESAMPLES = 5000


def bootstrap_interval(values: Sequence[float | None], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return a mean with its 95 % bootstrap interval.

    The interval is from percentile 2.5 to 97.5 of the means of items drawn with replacement.

    Args:
        values: one for each item; None is left out.
        seed: random seed of the draws.
        resamples: number of means.

    Returns:
        Mean and interval; without an interval for a single item, and without a value for none.
    """
    known = np.array([value for value in values if value is not None], float)
    undefined = len(values) - len(known)
    if len(known) == 0:
        return Interval(value=None, undefined=undefined)
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(value=mean, undefined=undefined)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = bootstrap(
            (known,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, 2**20 // len(known)),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(value=mean, low=float(found.low), high=float(found.high), undefined=undefined)


def jackknife_interval(groups: Sequence[Metric], new: Callable[[], Metric]) -> Interval:
    """Return a figure of a whole set with its 95 % interval, from its values without each group (Quenouille 1956).

    The standard error is the root of (G - 1) / G times the sum of squared deviations of the G figures from their mean,
    the interval 1.96 of it to either side. A bootstrap would have to compute the figure hundreds of times, which takes
    seconds each for a Fréchet distance.

    Args:
        groups: streaming metrics, each of which has seen its share of the items.
        new: makes a metric that has seen nothing.

    Returns:
        Figure and interval; without an interval for a single group or where a figure is not finite, and without a
        value where the value is not finite.
    """

    def figure(parts: Sequence[Metric]) -> float:
        whole = new()
        for part in parts:
            whole.merge_state(part)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method")  # torchmetrics does not count what was merged
            return float(whole.compute())

    value = figure(groups)
    if not math.isfinite(value):
        return Interval(value=None)
    number = len(groups)
    without = np.array([figure([*groups[:i], *groups[i + 1 :]]) for i in range(number)] if number > 1 else [np.nan])
    if not np.isfinite(without).all():
        return Interval(value=value)
    error = 1.96 * math.sqrt((number - 1) / number * float(((without - without.mean()) ** 2).sum()))
    return Interval(value=value, low=value - error, high=value + error)


class Curve(NamedTuple):
    """Points of one method: rates or bytes, all positive, and the figure of merit at each."""

    rates: Sequence[float]
    values: Sequence[float]


def bd_rate(curve: Curve, reference: Curve) -> float:
    """Return Bjontegaard's rate: how many percent more `curve` needs than `reference` for the same figure.

    It is negative where it needs less.

    The logarithm of the rate is interpolated over the figure by piecewise cubic Hermite polynomials that keep it
    monotone (Fritsch and Carlson, `scipy.interpolate.PchipInterpolator`), and the difference averaged over the figures
    that both curves reach. Bjontegaard's first proposal (VCEG-M33) fits one cubic to four points; the piecewise one
    takes any number of points from two, and does not swing between them.

    Raises:
        InputError: fewer than two points, a figure that does not rise or fall with the rate, or no overlap.
    """
    first, second = (
        _over(np.array(c.values, float), np.log10(np.array(c.rates, float)), "rate") for c in (curve, reference)
    )
    return float((10 ** _mean_difference(first, second, "figures") - 1) * 100)


def bd_metric(curve: Curve, reference: Curve) -> float:
    """Return Bjontegaard's difference (of PSNR: BD-PSNR): how much greater the figure of `curve` is at the same rate.

    It is computed as `bd_rate`, with the figure over the logarithm of the rate, and averaged over the rates that both
    curves have.

    Raises:
        InputError: fewer than two points, two of one rate, or no overlap.
    """
    first, second = (
        _over(np.log10(np.array(c.rates, float)), np.array(c.values, float), "figure") for c in (curve, reference)
    )
    return float(_mean_difference(first, second, "rates"))


def rate_at(curve: Curve, value: float) -> float:
    """Return the rate at which `curve` has the figure `value`, interpolated as in `bd_rate`.

    Raises:
        InputError: a value beyond the ends of the curve.
    """
    inverse = _over(np.array(curve.values, float), np.log10(np.array(curve.rates, float)), "rate")
    low, high = inverse.x[0], inverse.x[-1]
    if not low <= value <= high:
        raise InputError(f"{value:.4g} is beyond the other curve's figures, {low:.4g} to {high:.4g}")
    return float(10 ** inverse(value))


def _over(x: np.ndarray, y: np.ndarray, what: str) -> PchipInterpolator:
    """Interpolate `y` over `x`; where `y` is the rate, it must rise or fall throughout."""
    if len(x) < 2:
        raise InputError(f"expected a curve of at least two points, got {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("expected a curve of finite figures at rates above 0")
    order = np.argsort(x)
    x, y = x[order], y[order]
    if (np.diff(x) <= 0).any():
        raise InputError("expected a curve whose points differ, got two that are the same")
    if what == "rate" and len({*np.sign(np.diff(y)).tolist()}) > 1:
        raise InputError("expected a figure that rises or falls with the rate, got one that does both")
    return PchipInterpolator(x, y)


def _mean_difference(first: PchipInterpolator, second: PchipInterpolator, what: str) -> float:
    low, high = max(first.x[0], second.x[0]), min(first.x[-1], second.x[-1])
    if not low < high:
        raise InputError(f"the curves have no {what} in common")
    return (first.integrate(low, high) - second.integrate(low, high)) / (high - low)
