"""Protein structures for figures: superposition, the trace of the CA atoms as curves, and their distances.

A chain is float `[residues, 3]`, its CA atoms in angstrom, NaN where one is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.modalities.structure import ATOMS

LONGEST_BOND = 8.0  # angstrom; CA atoms farther apart than this are the two sides of a gap in the chain
BAND_SHIFT = 2.0  # angstrom by which the first chain is moved away from the viewer, so that it lies below the others
FEWEST_FOR_SUPERPOSITION = 3
# Widths of lines in a drawing that is 400 units wide: of the first chain, and of the others.
BAND_WIDTH, LINE_WIDTH = 8.0, 3.0


def ca_atoms(structure: Tensor) -> Tensor:
    """Return the CA atoms of a structure `[residues, 5, 3]` as float64 `[residues, 3]`."""
    return structure[:, ATOMS.index("CA")].double()


def superposed(structure: Tensor, fixed: Tensor) -> Tensor:
    """Rotate and shift a structure onto another by the CA atoms that both have (Kabsch's method, by biotite).

    Args:
        structure, fixed: float `[residues, 5, 3]` in angstrom, NaN where an atom is absent.

    Returns:
        float32 `[residues, 5, 3]`; `structure` itself where fewer than three residues have a CA atom in both.
    """
    from biotite.structure import superimpose

    mobile_atoms, fixed_atoms = ca_atoms(structure), ca_atoms(fixed)
    known = (mobile_atoms + fixed_atoms).isfinite().all(dim=-1)
    if int(known.sum()) < FEWEST_FOR_SUPERPOSITION:
        return structure
    _, transform = superimpose(fixed_atoms[known].numpy(), mobile_atoms[known].numpy())
    present = structure.isfinite().all(dim=-1)
    moved = structure.clone()
    moved[present] = torch.from_numpy(transform.apply(structure[present].double().numpy())).float()
    return moved


def distance_map(original: Tensor, reconstruction: Tensor) -> Tensor:
    """Return CA distances in angstrom: of the original above the diagonal, of the reconstruction below it.

    Args:
        original, reconstruction: chains of the same length.

    Returns:
        `[residues, residues]`, NaN where an atom is absent.
    """
    above, below = torch.cdist(original, original), torch.cdist(reconstruction, reconstruction)
    return torch.where(torch.ones_like(above, dtype=torch.bool).triu(), above, below)


@dataclass(frozen=True)
class Bond:
    """The line between two neighbouring CA atoms, as a viewer sees it.

    Attributes:
        chain: index of the chain.
        residue: index of the residue where the line starts; it ends at the next one.
        points: float `[4, 2]`, a cubic Bézier curve in angstrom, x to the right and y upwards.
        depth: 0 for what is farthest from the viewer, 1 for what is nearest.
    """

    chain: int
    residue: int
    points: np.ndarray
    depth: float

    @property
    def width(self) -> float:
        """Width of the line in a drawing of 400 units: wider where it is nearer, and a band for the first chain."""
        return (LINE_WIDTH if self.chain else BAND_WIDTH) * (0.7 + 0.6 * self.depth)


def trace_bonds(chains: Sequence[Tensor]) -> list[Bond]:
    """Return smooth curves through the CA atoms of chains that share a frame of reference.

    The view is the one from which the first chain is broadest.

    Args:
        chains: the original first; reconstructions follow.

    Returns:
        The bonds of all chains from the farthest to the nearest, the order in which they are to be drawn. There is
        none where an atom is absent or the chain has a gap.
    """
    known = chains[0][chains[0].isfinite().all(dim=1)]
    if len(known) == 0:
        return []
    center = known.mean(dim=0)
    turn = torch.linalg.svd(known - center, full_matrices=True).Vh.T
    found: list[tuple[float, int, int, np.ndarray]] = []
    for number, chain in enumerate(chains):
        turned = (chain - center) @ turn
        curves = _bezier_curves(turned)
        lengths = turned.diff(dim=0).norm(dim=-1)
        for residue in torch.nonzero(lengths < LONGEST_BOND).flatten().tolist():  # NaN is not less
            middle = float(turned[residue : residue + 2, 2].mean())
            depth = middle - (0.0 if number else BAND_SHIFT)
            found.append((depth, number, residue, curves[residue, :, :2].numpy()))
    if not found:
        return []
    found.sort(key=lambda bond: bond[:3])
    low, high = found[0][0], found[-1][0]
    return [
        Bond(chain, residue, points, (depth - low) / max(high - low, 1e-6)) for depth, chain, residue, points in found
    ]


def _bezier_curves(points: Tensor) -> Tensor:
    """Return Catmull-Rom curves through points `[n, 3]` as cubic Bézier curves `[n - 1, 4, 3]`.

    At an end and beside an absent point the tangent is the one towards the neighbour that is there.
    """
    before, after = points.roll(1, dims=0), points.roll(-1, dims=0)
    before[:1], after[-1:] = points[:1], points[-1:]
    is_gap_before, is_gap_after = (~(other - points).norm(dim=-1).lt(LONGEST_BOND) for other in (before, after))
    before = torch.where(is_gap_before[:, None], points, before)
    after = torch.where(is_gap_after[:, None], points, after)
    tangents = (after - before) / 6
    return torch.stack([points[:-1], points[:-1] + tangents[:-1], points[1:] - tangents[1:], points[1:]], dim=1)
