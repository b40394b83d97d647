"""Losses of protein backbones that do not change when the reconstruction is rotated or moved as a whole.

Structures are float `[B, residues, 5, 3]` in angstrom, NaN where an atom is absent. Residues that lack N, CA or C in
the original or in the reconstruction do not count.
"""

from __future__ import annotations

import torch
from torch import Tensor

BACKBONE = slice(3)  # N, CA and C
ALPHA = 1
CLAMP, UNIT = 10.0, 10.0  # angstrom
NEAR = 15.0  # angstrom; lDDT counts the same pairs
EPSILON = 1e-4  # under roots, square angstrom


def fape(reconstruction: Tensor, original: Tensor, clamp: float | None = CLAMP) -> Tensor:
    """Frame-aligned point error of backbones (AlphaFold, Nature 2021, supplement 1.9.2): scalar.

    Distance between every CA of the reconstruction and of the original, both in the coordinates of every residue's
    frame (by Gram-Schmidt from CA to C, then to N), at most `clamp` angstrom (None: no limit), divided by 10 angstrom;
    mean over the pairs of a chain, then over chains. A mirror image has a loss. A distance beyond the clamp has no
    gradient, and at the start of training nearly all distances are beyond it: AlphaFold leaves the clamp out in a tenth
    of its batches.

    DPLM-2 and AlphaFold also average over all iterations of the structure module; here only its output counts.
    """
    reconstruction, original, pairs = _backbones(reconstruction, original)
    ours, theirs = (_in_local_frames(backbone) for backbone in (reconstruction, original))
    distances = ((ours - theirs).square().sum(dim=-1) + EPSILON).sqrt().clamp(max=clamp or torch.inf)
    return _mean_over_pairs(distances / UNIT, pairs)


def distance_map(reconstruction: Tensor, original: Tensor, within: float | None = None) -> Tensor:
    """Mean absolute difference of the distances between N, CA and C of any two residues, in angstrom: scalar.

    Mean over the pairs of a chain, then over chains. A mirror image has no loss here; in `fape` it has one.

    Args:
        within: greatest distance in angstrom between the original's two CA atoms for a pair to count; None: all pairs
            count.
    """
    reconstruction, original, pairs = _backbones(reconstruction, original)
    ours, theirs = (_distances(backbone.flatten(1, 2)) for backbone in (reconstruction, original))
    differences = (ours - theirs).abs().unflatten(2, (-1, 3)).unflatten(1, (-1, 3)).mean(dim=(2, 4))
    if within is not None:
        pairs = pairs & (theirs[:, ALPHA::3, ALPHA::3] <= within)
    return _mean_over_pairs(differences, pairs)


def _backbones(reconstruction: Tensor, original: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N, CA and C of both, `[B, L, 3, 3]`, 0 in residues that do not count, and which pairs count, `[B, L, L]`."""
    reconstruction, original = reconstruction[:, :, BACKBONE].float(), original[:, :, BACKBONE].float()
    present = (reconstruction + original).isfinite().flatten(2).all(dim=2)
    absent, pairs = ~present[..., None, None], present[:, :, None] & present[:, None]
    return reconstruction.masked_fill(absent, 0), original.masked_fill(absent, 0), pairs


def _in_local_frames(backbone: Tensor) -> Tensor:
    """Every CA in the coordinates of every residue's frame: `[B, L, 3, 3]` to `[B, L of frames, L, 3]`."""
    nitrogen, alpha, carbon = backbone.unbind(dim=2)
    first = _unit(carbon - alpha)
    second = nitrogen - alpha
    second = _unit(second - (second * first).sum(dim=-1, keepdim=True) * first)
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)  # [B, L, 3, axis]
    return (alpha[:, None] - alpha[:, :, None]) @ axes


def _unit(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().sum(dim=-1, keepdim=True) + EPSILON**2).sqrt()


def _distances(points: Tensor) -> Tensor:
    """Distances `[B, n, n]` between points `[B, n, 3]`, with a finite gradient at 0."""
    return ((points[:, :, None] - points[:, None]).square().sum(dim=-1) + EPSILON).sqrt()


def _mean_over_pairs(values: Tensor, pairs: Tensor) -> Tensor:
    """Mean over chains of the means over the pairs that count, from values `[B, L, L]` and bool `[B, L, L]`."""
    counts = pairs.sum(dim=(1, 2))
    means = (values * pairs).sum(dim=(1, 2)) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
