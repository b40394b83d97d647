"""Structures: distance of atoms after superposition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.tokenizer import ATOMS

BACKBONE = ("N", "CA", "C")


def rmsd(reconstruction: Tensor, original: Tensor, atoms: tuple[str, ...] = BACKBONE) -> Tensor:
    """Root mean square distance of atoms, after the rotation and shift that make it least (Kabsch 1976), by biotite.

    Taken over the residues that have all of `atoms` in both. A mirror image is no superposition.

    Args:
        reconstruction, original: floating point `[B, residues, 5, 3]`, or `[residues, 5, 3]` for one, in angstrom,
            atoms N, CA, C, CB and O, NaN where one is absent.
        atoms: names of those that count: `("N", "CA", "C")`, the backbone, or `("CA",)`.

    Returns:
        float32 `[B]`, or `[]` for one, in angstrom, at least 0, lower is better. NaN where no residue has the atoms
        in both.

    Raises:
        InputError: another type, shape or dtype, two that differ in shape, a coordinate that is infinite, or no or
            unknown atoms.
    """
    _check_pair(reconstruction, original)
    if isinstance(atoms, str) or not atoms or not set(atoms) <= set(ATOMS):
        raise InputError(f"expected atoms as a tuple of names among {', '.join(ATOMS)}, got {atoms!r}")
    columns = [ATOMS.index(name) for name in atoms]
    from biotite import structure

    def score(mobile: Tensor, fixed: Tensor) -> float:
        mobile, fixed = mobile[:, columns], fixed[:, columns]
        in_both = (mobile + fixed).isfinite().flatten(1).all(dim=1)
        if not in_both.any():
            return math.nan
        mobile, fixed = (points[in_both].flatten(0, 1).numpy() for points in (mobile, fixed))
        superimposed, _ = structure.superimpose(fixed, mobile)
        return float(structure.rmsd(fixed, superimposed))

    chains = torch.stack([reconstruction, original], dim=-4).detach().cpu().float()  # as biotite computes
    scores = [score(*pair) for pair in chains.reshape(-1, 2, *original.shape[-3:])]
    return torch.tensor(scores, dtype=torch.float32, device=original.device).reshape(original.shape[:-3])


def _check_pair(reconstruction: Tensor, original: Tensor) -> None:
    for name, chains in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(chains, Tensor) or not chains.is_floating_point():
            came = chains.dtype if isinstance(chains, Tensor) else type(chains).__name__
            raise InputError(f"expected {name} as a float tensor [batch, residues, 5, 3] in angstrom, got {came}")
        if chains.ndim not in (3, 4) or chains.shape[-2:] != (len(ATOMS), 3) or chains.numel() == 0:
            raise InputError(f"expected {name} as [batch, residues, 5, 3], got {list(chains.shape)}")
        if chains.isinf().any():
            raise InputError(f"expected {name} in angstrom, NaN where an atom is absent, got an infinite coordinate")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )
