"""Structures: similarity of whole chains, of each residue's neighbourhood, and of the geometry of the backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics.base import plain_metric
from zoo.modalities.structure import ATOMS
from zoo.tracing import values_are_readable

if TYPE_CHECKING:
    from biotite.structure import AtomArray

BACKBONE = ("N", "CA", "C")
LONGEST_PEPTIDE_BOND = 2.0  # angstrom; the bond is 1.33 long, and atoms farther apart than this are at a gap
SHORTEST_FRAGMENT = 4
ROUNDS, LAST_ROUNDS, FINALISTS = 5, 50, 8


def rmsd(reconstruction: Tensor, original: Tensor, atoms: tuple[str, ...] = BACKBONE) -> Tensor:
    """Root mean square distance of atoms, after the rotation and shift that minimise it (Kabsch 1976), by biotite.

    It is taken over the residues that have all of `atoms` in both. Chains are not mirrored.

    Args:
        reconstruction, original: floating point `[B, residues, 5, 3]`, or `[residues, 5, 3]` for one, in angstrom,
            atoms N, CA, C, CB and O, NaN where one is absent.
        atoms: names of the atoms that count: `("N", "CA", "C")`, the backbone, or `("CA",)`.

    Returns:
        float32 `[B]`, or `[]` for one, in angstrom, at least 0, lower is better. NaN where no residue has the atoms
        in both.

    Raises:
        InputError: a wrong type, shape or dtype, two shapes that differ, a coordinate that is infinite, or no or
            unknown atoms.
    """
    _check_pair(reconstruction, original)
    _check_atoms(atoms)
    from biotite import structure

    def score(mobile: Tensor, fixed: Tensor) -> float:
        moving, still = (points.flatten(0, 1).numpy() for points in _in_both(mobile, fixed, atoms))
        if len(still) == 0:
            return math.nan
        superimposed, _ = structure.superimpose(still, moving)
        return float(structure.rmsd(still, superimposed))

    return _each(score, reconstruction, original)


def tm_score(reconstruction: Tensor, original: Tensor) -> Tensor:
    """TM-score of CA atoms (Zhang and Skolnick 2004), residue by residue, by biotite.

    It is the mean over residues of `1 / (1 + (d / d0)^2)` for the superposition that maximises it, with `d` the
    distance of their CA atoms and `d0 = 1.24 (L - 15)^(1/3) - 1.8` angstrom, at least 0.5. It is taken over the L
    residues that have a CA atom in both. As in TM-score, and unlike in TM-align, residues correspond by position. The
    search starts, as in TM-score, from superpositions of fragments of the chain, but then climbs in steps that never
    lower the score.

    Args:
        reconstruction, original: floating point `[B, residues, 5, 3]`, or `[residues, 5, 3]` for one, in angstrom,
            atoms N, CA, C, CB and O, NaN where one is absent.

    Returns:
        float32 `[B]`, or `[]` for one, from 0 to 1, higher is better; above 0.5 the fold is mostly the same. NaN where
        no residue has the atom in both.

    Raises:
        InputError: a wrong type, shape or dtype, two shapes that differ, or a coordinate that is infinite.
    """
    _check_pair(reconstruction, original)
    from biotite import structure

    def score(mobile: Tensor, fixed: Tensor) -> float:
        mobile, fixed = _in_both(mobile, fixed, ("CA",))
        if len(fixed) == 0:
            return math.nan
        atoms = _atom_array(fixed, ("CA",))
        moved = atoms.copy()
        moved.coord = _best_superposition(mobile[:, 0].double(), fixed[:, 0].double()).numpy()
        indices = range(len(fixed))
        return structure.tm_score(atoms, moved, list(indices), list(indices), reference_length=len(fixed))

    return _each(score, reconstruction, original)


def lddt(reconstruction: Tensor, original: Tensor, atoms: tuple[str, ...] = ("CA",)) -> Tensor:
    """Local distance difference test (Mariani et al. 2013), which needs no superposition, by biotite.

    Of all pairs of atoms that are at most 15 angstrom apart in the original and belong to different residues, it is
    the share whose distance is kept to within 0.5, 1, 2 and 4 angstrom: the mean of the four shares. It is taken over
    the residues that have all of `atoms` in both. A mirror image keeps all distances.

    Args:
        reconstruction, original: as in `tm_score`.
        atoms: names of the atoms that count: `("CA",)` for lDDT-CA, which AlphaFold's pLDDT predicts.

    Returns:
        float32 `[B]`, or `[]` for one, from 0 to 1, higher is better. NaN where no two residues are that near.

    Raises:
        InputError: as in `rmsd`.
    """
    _check_pair(reconstruction, original)
    _check_atoms(atoms)
    from biotite import structure

    def score(mobile: Tensor, fixed: Tensor) -> float:
        mobile, fixed = _in_both(mobile, fixed, atoms)
        if len(fixed) == 0:
            return math.nan
        return float(structure.lddt(_atom_array(fixed, atoms), mobile.flatten(0, 1).numpy()))

    return _each(score, reconstruction, original)


def bond_deviation(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute deviation of the lengths of the backbone's bonds from the original's.

    The bonds are N-CA and CA-C in each residue and C-N to the next, with equal weight. Bonds that lack an atom in
    either are left out, and so is a C-N longer than 2 angstrom in the original, which is a gap in the chain.

    Args:
        reconstruction, original: as in `tm_score`.

    Returns:
        float32 `[B]`, or `[]` for one, in angstrom, at least 0, lower is better. NaN where no bond is in both.

    Raises:
        InputError: as in `tm_score`.
    """
    _check_pair(reconstruction, original)
    lengths, wanted = _bond_lengths(reconstruction), _bond_lengths(original)
    wanted[..., 2::3].masked_fill_(_gaps(original), torch.nan)
    return (lengths - wanted).abs().nanmean(dim=-1).float()


def angle_deviation(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute deviation of the angles between the backbone's bonds from the original's.

    The angles are N-CA-C in each residue, and CA-C-N and C-N-CA to the next, with equal weight; those at gaps or absent
    atoms are left out, as in `bond_deviation`.

    Args:
        reconstruction, original: as in `tm_score`.

    Returns:
        float32 `[B]`, or `[]` for one, in degrees, from 0 to 180, lower is better. NaN where no angle is in both.

    Raises:
        InputError: as in `tm_score`.
    """
    _check_pair(reconstruction, original)
    angles, wanted = _bond_angles(reconstruction), _bond_angles(original)
    for first in (1, 2):
        wanted[..., first::3].masked_fill_(_gaps(original), torch.nan)
    return (angles - wanted).abs().nanmean(dim=-1).float()


def _in_both(mobile: Tensor, fixed: Tensor, atoms: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return `atoms` of the residues that have them in both chains: twice `[residues, atoms, 3]`."""
    columns = [ATOMS.index(name) for name in atoms]
    mobile, fixed = mobile[:, columns], fixed[:, columns]
    in_both = (mobile + fixed).isfinite().flatten(1).all(dim=1)
    return mobile[in_both], fixed[in_both]


def _each(score: Callable[[Tensor, Tensor], float], reconstruction: Tensor, original: Tensor) -> Tensor:
    """Return the score of every pair of chains: float32, in the shape of the batch axes."""
    pairs = torch.stack([reconstruction, original], dim=-4).detach().cpu().float()  # biotite computes in float32
    scores = [score(*pair) for pair in pairs.reshape(-1, 2, *original.shape[-3:])]
    return torch.tensor(scores, dtype=torch.float32, device=original.device).reshape(original.shape[:-3])


def _atom_array(points: Tensor, atoms: tuple[str, ...]) -> AtomArray:
    """Return `[residues, atoms, 3]` as an array of biotite, one residue for each row."""
    from biotite.structure import AtomArray

    array = AtomArray(points.shape[0] * points.shape[1])
    array.coord = points.flatten(0, 1).numpy()
    array.res_id = torch.arange(1, len(points) + 1).repeat_interleave(len(atoms)).numpy()
    array.atom_name[:] = list(atoms) * len(points)
    array.res_name[:] = "GLY"
    return array


def _best_superposition(mobile: Tensor, fixed: Tensor) -> Tensor:
    """Return `mobile` moved so that the TM-score is largest; both are float64 `[residues, 3]`.

    Each term of the score is a convex function of its squared distance. So the superposition that minimises the
    squared distances, weighted by how fast the terms fall, never lowers the score (majorisation).
    """
    length = len(fixed)
    scale = max(1.24 * max(length - 15, 0) ** (1 / 3) - 1.8, 0.5) ** 2
    mobile, centre = mobile - mobile.mean(dim=0), fixed.mean(dim=0)
    fixed = fixed - centre
    weights = _fragments(length).to(mobile)
    for rounds, kept in ((ROUNDS, FINALISTS), (LAST_ROUNDS, 1)):
        for _ in range(rounds):
            moved = _superimpose(mobile, fixed, weights)
            terms = 1 / (1 + (moved - fixed).square().sum(dim=2) / scale)
            weights = terms.square()
        best = terms.sum(dim=1).topk(min(kept, len(terms))).indices
        weights, moved = weights[best], moved[best]
    return moved[0] + centre


def _fragments(length: int) -> Tensor:
    """Return the whole chain, halves, quarters and so on, each half over the next: bool `[fragments, length]`."""
    places = torch.arange(length)
    rows = [places >= 0]
    size = length // 2
    while size >= SHORTEST_FRAGMENT:
        starts = torch.arange(0, length - size + 1, size // 2)[:, None]
        rows.extend((places >= starts) & (places < starts + size))
        size //= 2
    return torch.stack(rows)


def _superimpose(mobile: Tensor, fixed: Tensor, weights: Tensor) -> Tensor:
    """Return Kabsch's superpositions `[S, residues, 3]`, one for each row of weights `[S, residues]`."""
    weights = weights / weights.sum(dim=1, keepdim=True)
    mobile_centre, fixed_centre = (weights @ mobile)[:, None], (weights @ fixed)[:, None]
    covariance = (weights[:, None] * mobile.T) @ fixed - mobile_centre.mT @ fixed_centre
    left, _, right = torch.linalg.svd(covariance)
    left[:, :, 2] *= torch.linalg.det(left @ right)[:, None]  # no mirror image
    return (mobile - mobile_centre) @ (left @ right) + fixed_centre


def _bonds(chains: Tensor) -> Tensor:
    """Return the vectors N-CA, CA-C and C-N of `[..., residues, 5, 3]`: float64 `[..., 3 * residues - 1, 3]`."""
    columns = [ATOMS.index(name) for name in BACKBONE]
    return chains[..., columns, :].double().flatten(-3, -2).diff(dim=-2)


def _bond_lengths(chains: Tensor) -> Tensor:
    """Return the lengths of N-CA, CA-C and C-N in turn: `[..., 3 * residues - 1]` angstrom."""
    return _bonds(chains).norm(dim=-1)


def _bond_angles(chains: Tensor) -> Tensor:
    """Return the angles N-CA-C, CA-C-N and C-N-CA in turn: `[..., 3 * residues - 2]` degrees."""
    bonds = _bonds(chains)
    back, forth = -bonds[..., :-1, :], bonds[..., 1:, :]
    return torch.atan2(torch.linalg.cross(back, forth).norm(dim=-1), (back * forth).sum(dim=-1)).rad2deg()


def _gaps(chains: Tensor) -> Tensor:
    """Return whether the bond from each residue to the next is missing: bool `[..., residues - 1]`."""
    return ~(_bond_lengths(chains)[..., 2::3] <= LONGEST_PEPTIDE_BOND)


def _check_atoms(atoms: tuple[str, ...]) -> None:
    if isinstance(atoms, str) or not atoms or not set(atoms) <= set(ATOMS):
        raise InputError(f"expected atoms as a tuple of names among {', '.join(ATOMS)}, got {atoms!r}")


def _check_pair(reconstruction: Tensor, original: Tensor) -> None:
    for name, chains in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(chains, Tensor) or not chains.is_floating_point():
            came = chains.dtype if isinstance(chains, Tensor) else type(chains).__name__
            raise InputError(f"expected {name} as a float tensor [batch, residues, 5, 3] in angstrom, got {came}")
        if chains.ndim not in (3, 4) or chains.shape[-2:] != (len(ATOMS), 3) or chains.numel() == 0:
            raise InputError(f"expected {name} as [batch, residues, 5, 3], got {list(chains.shape)}")
        if values_are_readable(chains) and chains.isinf().any():
            raise InputError(f"expected {name} in angstrom, NaN where an atom is absent, got an infinite coordinate")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )


STRUCTURE = {
    metric.name: metric
    for metric in (
        plain_metric("rmsd", "Backbone RMSD", rmsd, unit="Å", digits=2, higher_is_better=False),
        plain_metric("ca_rmsd", "CA RMSD", partial(rmsd, atoms=("CA",)), unit="Å", digits=2, higher_is_better=False),
        plain_metric("tm_score", "TM-score", tm_score, higher_is_better=True),
        plain_metric("lddt", "lDDT-CA", lddt, higher_is_better=True),
        plain_metric("bond_deviation", "Bond deviation", bond_deviation, unit="Å", higher_is_better=False),
        plain_metric("angle_deviation", "Angle deviation", angle_deviation, unit="°", digits=2, higher_is_better=False),
    )
}
