"""Drawings in SVG: what they show is there, escaped, and has its place."""

import re
from xml.etree import ElementTree

import pytest
import torch

from tests.support.media import helix
from zoo.pictures.markup import Markup, element, joined
from zoo.pictures.plots import CurvePoint, Palette, curve_plot, log_ticks, trace_plot, usage_plot
from zoo.pictures.structures import ca_atoms


def points(*places: tuple[float, float], **interval: float) -> list[CurvePoint]:
    return [CurvePoint(x=x, y=y, text=f"{x} {y}", **interval) for x, y in places]


def test_text_is_escaped_once():
    markup = element("p", "a < b", Markup("<b>c</b>"), None, title='"', hidden=True, id=None)
    assert markup == '<p title="&quot;" hidden>a &lt; b<b>c</b></p>'
    assert joined("<", markup) == f"&lt;{markup}"


def test_curves_have_marks_lines_and_bars_with_intervals():
    curves = {"A": points((1, 5), (2, 6), low=4, high=7), "B": points((1, 3))}
    drawn = ElementTree.fromstring(
        curve_plot(curves, Palette({"A": False, "B": True}), x_label="bits", description="A and B")
    )
    assert drawn.get("aria-label") == "A and B"
    kinds = [part.get("class") for part in drawn.iter() if part.get("class")]
    assert (kinds.count("mark"), kinds.count("bar"), kinds.count("curve")) == (3, 2, 1)
    assert [title.text for title in drawn.iter("title")] == ["1 3", "1 5", "2 6"]  # the first curve on top


@pytest.mark.parametrize(("rates", "text"), [((1, 2), "bits"), ((1, 8), "bits (logarithmic)")])
def test_rates_far_apart_are_on_a_logarithm(rates, text):
    plot = curve_plot(
        {"A": points(*((rate, 1) for rate in rates))}, Palette({"A": False}), x_label="bits", description=""
    )
    assert f">{text}<" in plot


def test_a_higher_value_is_higher_up():
    plot = ElementTree.fromstring(
        curve_plot({"A": points((1, 1), (2, 9))}, Palette({"A": False}), x_label="", description="")
    )
    low, high = (float(mark.get("cy")) for mark in plot.iter("circle"))
    assert high < low


def test_ticks_of_a_logarithm_are_few_and_round():
    assert log_ticks(0.9, 21) == [1, 2, 5, 10, 20]
    assert len(log_ticks(1e-3, 1e3)) <= 8


def test_each_curve_has_a_colour_and_a_mark_of_its_own():
    palette = Palette({name: name > "F" for name in "ABCDEFGH"})
    looks = {(palette.color(name), palette.mark(name, 0, 0)) for name in "ABCDEFGH"}
    assert len(looks) == 8


def test_use_of_a_codebook_is_relative_to_even_use():
    assert "most used: 2.0 times even use" in str(usage_plot([1, 2, 0, 1], "red", "use"))
    assert usage_plot([], "red", "use") is None and usage_plot([0, 0], "red", "use") is None


def test_traces_of_all_chains_lie_within_the_drawing():
    chain = ca_atoms(helix(30))
    drawn = ElementTree.fromstring(trace_plot([(chain, "grey"), (chain + 3, "red")], "two chains"))
    _, _, width, height = map(float, str(drawn.get("viewBox")).split())
    assert {path.get("stroke") for path in drawn.iter("path")} == {"grey", "red"}
    for path in drawn.iter("path"):
        places = torch.tensor([float(number) for number in re.findall(r"-?[\d.]+", str(path.get("d")))]).view(-1, 2)
        assert (places >= 0).all() and (places[:, 0] <= width).all() and (places[:, 1] <= height).all()


def test_a_chain_without_atoms_is_an_empty_drawing():
    absent = torch.full((4, 3), torch.nan, dtype=torch.float64)
    assert "<path" not in trace_plot([(absent, "grey")], "nothing")
