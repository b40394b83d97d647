"""The view of proteins that turns: the data that its script draws."""

import json

import numpy as np

from tests.support.html import Page
from tests.support.media import helix
from zoo.pictures.structures import ca_atoms
from zoo.pictures.turning import turning_view


def test_each_chain_is_a_curve_through_its_atoms():
    chain = ca_atoms(helix(12))
    page = Page(turning_view([chain, chain + 1], "two helices"))
    (canvas,) = page.all("canvas")
    assert canvas["aria-label"] == "two helices"
    assert page.all("svg")  # where no script runs
    first, second = (np.array(pieces) for pieces in json.loads(canvas["data-chains"]))
    np.testing.assert_allclose(first[1:, :3], first[:-1, 3:6], atol=1e-9)  # without a break
    ends = np.concatenate([first[:, :3], first[-1:, 3:6]])[:: (len(first) // 11)]
    np.testing.assert_allclose(ends, (chain - chain.mean(dim=0)).numpy(), atol=0.06)
    np.testing.assert_allclose(second[:, :6], first[:, :6] + 1, atol=0.11)
    assert (first[0, 6], first[-1, 6]) == (0, 1)


def test_there_is_no_piece_beside_an_absent_atom():
    chain = ca_atoms(helix(12))
    chain[4] = float("nan")
    (pieces,) = json.loads(Page(turning_view([chain], "")).all("canvas")[0]["data-chains"])
    assert len(pieces) == 9 * 3
