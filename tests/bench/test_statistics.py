"""Intervals, and distances between curves, against figures by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchmetrics

from zoo.bench.statistics import Curve, bd_metric, bd_rate, bootstrap_interval, jackknife_interval, rate_at
from zoo.errors import InputError


def test_bd_rate_of_straight_lines_by_hand():
    """PSNR 20 + 10 log10(rate) and 3 dB more: the same figure takes 10 ** -0.3 of the rate."""
    rates = [1.0, 2.0, 5.0, 10.0]
    reference = Curve(rates, [20 + 10 * np.log10(rate) for rate in rates])
    better = Curve(rates, [23 + 10 * np.log10(rate) for rate in rates])
    assert bd_rate(better, reference) == pytest.approx(100 * (10**-0.3 - 1))
    assert bd_metric(better, reference) == pytest.approx(3)
    assert bd_rate(reference, better) == pytest.approx(100 * (10**0.3 - 1))
    assert rate_at(reference, 25.0) == pytest.approx(10**0.5)


def test_bd_figures_take_the_overlap_alone():
    """Log-rates 0 to 2 and 1 to 3, figures 0 to 2 and 2 to 4 at slope 1: apart by 1 where both are."""
    first, second = Curve([1, 10, 100], [0, 1, 2]), Curve([10, 100, 1000], [2, 3, 4])
    assert bd_metric(second, first) == pytest.approx(1)
    with pytest.raises(InputError, match="in common"):
        bd_rate(second, first)  # the figures touch in a point
    falling = Curve([1, 10, 100], [3, 2, 1])
    assert bd_rate(Curve([2, 20, 200], [3, 2, 1]), falling) == pytest.approx(100)


@pytest.mark.parametrize("curve", [Curve([1], [1]), Curve([1, 2, 3], [1, 3, 2]), Curve([1, 2], [1, 1])])
def test_what_is_no_curve_is_refused(curve):
    with pytest.raises(InputError):
        bd_rate(curve, Curve([1, 2, 3], [1, 2, 3]))


def test_the_jackknife_of_a_mean_is_its_standard_error():
    class Mean(torchmetrics.MeanMetric):
        full_state_update = False

    values = np.random.default_rng(0).normal(5, 2, size=(10, 7))
    groups = [Mean() for _ in values]
    for group, items in zip(groups, values, strict=True):
        group.update(torch.from_numpy(items))
    interval = jackknife_interval(groups, Mean)
    error = values.mean(axis=1).std(ddof=1) / np.sqrt(10)
    assert interval.value == pytest.approx(values.mean(), rel=1e-5)
    assert interval.high - interval.value == pytest.approx(1.96 * error, rel=1e-4)
    assert interval.value - interval.low == pytest.approx(1.96 * error, rel=1e-4)
    assert jackknife_interval(groups[:1], Mean).low is None


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for number in range(300):
        interval = bootstrap_interval(draw.exponential(size=60).tolist(), seed=number, resamples=400)
        covered += interval.low <= 1 <= interval.high
    assert 0.88 <= covered / 300 <= 0.98
    known = bootstrap_interval([1.0, 2.0, 4.0], seed=1)
    assert bootstrap_interval([1.0, 2.0, None, 4.0], seed=1) == replace(known, undefined=1)
    assert bootstrap_interval([3.0]).low is None and bootstrap_interval([None]).value is None
    assert bootstrap_interval([2.0, 2.0]).high == 2.0
