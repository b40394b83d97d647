"""Who wins at which rate, and the words for it."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.bench import METRIC, make_point, make_results
from zoo.bench.results import Interval, Point, Results
from zoo.bench.verdict import Span, elsewhere, sentence, spans


def curve(method: str, figures: dict[float, float], noise: float = 0.0, **fields) -> list[Point]:
    """Points by rate; twenty files that differ widely from each other, and by `noise` from one method to the next."""
    generator = np.random.default_rng(len(method))
    files = np.linspace(-5, 5, 20)
    return [
        make_point(
            method,
            rate,
            {str(i): value + file + noise * generator.normal() for i, file in enumerate(files)},
            **fields,
        )
        for rate, value in figures.items()
    ]


def said(results: Results, in_words: Callable = sentence) -> str:
    metric = next(iter(results.metrics))
    pieces = in_words(results, metric, spans(results, metric))
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)


def test_small_differences_win_where_every_file_shows_them():
    results = make_results([*curve("A", {1: 20.0, 4: 30.0}), *curve("B", {1: 19.5, 4: 29.5})])
    assert spans(results, "psnr") == [Span(low=1, high=4, methods=("A",))]
    assert said(results) == "A wins at every rate, 1 to 4 bits per pixel."


def test_differences_within_the_noise_are_ties():
    results = make_results([*curve("A", {1: 20.0, 4: 30.0}, 3.0), *curve("BB", {1: 20.1, 4: 30.1}, 3.0)])
    assert spans(results, "psnr") == [Span(low=1, high=4, methods=("A", "BB"))]
    assert said(results) == "A and BB tie at every rate, 1 to 4 bits per pixel."


def test_curves_that_cross_win_on_their_sides():
    results = make_results([*curve("A", {1: 20.0, 4: 22.0}), *curve("B", {1: 18.0, 4: 24.0})])
    ranges = spans(results, "psnr")
    assert [span.methods for span in ranges] == [("A",), ("B",)]
    assert ranges[0].high == pytest.approx(2, rel=0.02)  # the middle of 1 and 4 on the logarithm
    assert said(results) == "A wins below 2 bits per pixel; B wins above 2."


def test_lower_is_better_where_the_metric_says_so():
    lower = {"psnr": {**METRIC["image"][1], "higher_is_better": False}}
    results = make_results([*curve("A", {1: 20.0, 4: 10.0}), *curve("B", {1: 19.0, 4: 9.0})], metrics=lower)
    assert said(results) == "B wins at every rate, 1 to 4 bits per pixel."


def test_a_tokenizer_below_all_codecs_is_alone_there_and_then_keeps_its_figure():
    tokenizer = curve("T", {0.1: 25.0}, baseline=False)
    results = make_results([*tokenizer, *curve("C", {1: 20.0, 100: 30.0})])
    assert [(span.methods, span.alone) for span in spans(results, "psnr")] == [
        (("T",), True),
        (("T",), False),
        (("C",), False),
    ]
    assert said(results) == "T is alone below 1 bits per pixel and wins from 1 to 10; C wins above 10."


def test_a_tokenizer_that_wins_nowhere_is_compared_at_its_rate():
    results = make_results([*curve("T", {2: 15.0}, baseline=False), *curve("C", {1: 20.0, 4: 30.0})])
    assert said(results) == "C is alone below 2 bits per pixel and wins above 2."
    assert said(results, elsewhere) == "At 2 bits per pixel T has 15.00 against C with 25.00 dB."


def test_a_tokenizer_that_is_best_only_at_its_own_rate_is_said_to_be():
    results = make_results([*curve("T", {2: 25.01}, baseline=False), *curve("C", {1: 20.0, 4: 30.0})])
    assert said(results, elsewhere) == "At 2 bits per pixel T has 25.01 against C with 25.00 dB, and wins there."


def test_figures_of_a_set_are_compared_by_their_intervals():
    def point(method: str, value: float, half: float) -> Point:
        interval = Interval(value=value, low=value - half, high=value + half)
        return make_point(method, 1.0, {"a": 0.0}, metrics={"psnr": interval}, items=[])

    apart = make_results([point("A", 10, 1), point("B", 13, 1)])
    overlapping = make_results([point("A", 10, 2), point("B", 13, 2)])
    assert said(apart) == "B wins at 1 bits per pixel."
    assert said(overlapping) == "A and B tie at 1 bits per pixel."


def test_without_a_better_direction_or_a_rival_there_is_no_winner():
    neither = {"psnr": {**METRIC["image"][1], "higher_is_better": None}}
    points = curve("A", {1: 20.0, 4: 30.0})
    assert "Neither direction" in said(make_results([*points, *curve("B", {1: 2.0})], metrics=neither))
    assert said(make_results(points)) == "Only A has a figure: there is nothing to compare."
