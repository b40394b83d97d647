"""Proteins for figures: superposition, traces and distances."""

import itertools
import math

import numpy as np
import torch

from tests.support.media import helix
from zoo.pictures.structures import ca_atoms, superposed, trace_bonds, trace_image


def turned(structure: torch.Tensor) -> torch.Tensor:
    """A structure rotated by 40 degrees and shifted."""
    cosine, sine = math.cos(math.radians(40)), math.sin(math.radians(40))
    rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    return structure @ rotation.T + torch.tensor([5.0, -3.0, 11.0])


def test_a_turned_structure_is_put_back_with_its_absent_atoms():
    structure = helix(20)
    structure[3, 3], structure[7] = torch.nan, torch.nan
    moved = superposed(turned(structure), structure)
    torch.testing.assert_close(moved, structure, atol=1e-4, rtol=0, equal_nan=True)


def test_too_few_common_atoms_leave_a_structure_where_it_is():
    structure = helix(4)
    other = structure.clone()
    other[2:] = torch.nan
    assert torch.equal(superposed(structure, other), structure)


def test_curves_go_through_the_atoms_without_a_break():
    chain = ca_atoms(helix(12))
    bonds = sorted(trace_bonds([chain]), key=lambda bond: bond.residue)
    assert [bond.residue for bond in bonds] == list(range(11))
    for bond, after in itertools.pairwise(bonds):
        np.testing.assert_allclose(bond.points[3], after.points[0])
        np.testing.assert_allclose(bond.points[3] - bond.points[2], after.points[1] - after.points[0], atol=1e-9)


def test_a_chain_is_seen_from_where_it_is_broadest():
    bonds = trace_bonds([ca_atoms(turned(helix(40)))])
    corners = np.concatenate([bond.points for bond in bonds])
    width, height = np.ptp(corners, axis=0)
    assert width > 55 > 10 > height


def test_there_is_no_line_across_a_gap_or_to_an_absent_atom():
    chain = ca_atoms(helix(12))
    chain[4] = torch.nan
    chain[9:] += 20
    bonds = trace_bonds([chain])
    assert sorted(bond.residue for bond in bonds) == [0, 1, 2, 5, 6, 7, 9, 10]
    assert all(np.isfinite(bond.points).all() for bond in bonds)


def test_the_original_is_a_band_below_a_reconstruction_in_the_same_place():
    chain = ca_atoms(helix(5))
    bonds = trace_bonds([chain, chain])
    order = {(bond.chain, bond.residue): place for place, bond in enumerate(bonds)}
    assert all(order[0, residue] < order[1, residue] for residue in range(4))
    assert min(bond.width for bond in bonds if bond.chain == 0) > max(bond.width for bond in bonds if bond.chain == 1)
    depths = [bond.depth for bond in bonds]
    assert depths == sorted(depths) and (depths[0], depths[-1]) == (0, 1)


def test_chains_without_atoms_have_no_trace():
    assert trace_bonds([torch.full((5, 3), torch.nan, dtype=torch.float64)]) == []


def test_an_image_of_traces_has_the_colours_of_the_rainbow_from_the_first_residue_to_the_last():
    chain = ca_atoms(helix(30))
    pixels = np.asarray(trace_image([chain, chain], 200)).astype(int)
    assert pixels.shape == (200, 200, 3)
    red, blue = pixels[..., 0] - pixels[..., 2] > 100, pixels[..., 2] - pixels[..., 0] > 100
    (red_columns, blue_columns) = (np.nonzero(mask)[1].mean() for mask in (red, blue))
    assert abs(red_columns - blue_columns) > 80
