"""Losses of protein backbones that do not change when the reconstruction is turned and moved as a whole.

Structures are float `[B, residues, 5, 3]` in angstrom, NaN where an atom is absent. Residues that lack N, CA or C in
the original or in the reconstruction do not count.
"""

from __future__ import annotations

import torch
from torch import Tensor

BACKBONE = slice(3)  # N, CA and C
ALPHA = 1
CLAMP, UNIT = 10.0, 10.0  # angstrom
NEAR = 15.0  # angstrom, as of the pairs that lDDT counts
EPSILON = 1e-4  # under roots, square angstrom


def fape(reconstruction: Tensor, original: Tensor, clamp: float | None = CLAMP) -> Tensor:
    """Frame-aligned point error of backbones (AlphaFold, Nature 2021, supplement 1.9.2): scalar.

    The distance of every CA from where the original has it, both seen from the frame of every residue (by Gram-Schmidt
    from CA to C, then to N), at most `clamp` angstrom (None: as it is), over 10 angstrom; mean over the pairs of a
    chain, then over chains. A mirror image is told apart. A distance beyond the clamp has no gradient, and at the start
    of training nearly all are: AlphaFold leaves it out in a tenth of its batches.

    DPLM-2 and AlphaFold take the mean over all iterations of the structure module as well; here it is of what comes
    out.
    """
    reconstruction, original, pairs = _backbones(reconstruction, original)
    ours, theirs = (_in_local_frames(backbone) for backbone in (reconstruction, original))
    distances = ((ours - theirs).square().sum(dim=-1) + EPSILON).sqrt().clamp(max=clamp or torch.inf)
    return _mean_over_pairs(distances / UNIT, pairs)


def distance_map(reconstruction: Tensor, original: Tensor, within: float | None = None) -> Tensor:
    """Mean absolute difference of the distances between N, CA and C of any two residues, in angstrom: scalar.

    Mean over the pairs of a chain, then over chains. A mirror image is not told apart; `fape` does that.

    Args:
        within: angstrom between two CA atoms of the original, beyond which a pair does not count; None: all do.
    """
    reconstruction, original, pairs = _backbones(reconstruction, original)
    ours, theirs = (_distances(backbone.flatten(1, 2)) for backbone in (reconstruction, original))
    differences = (ours - theirs).abs().unflatten(2, (-1, 3)).unflatten(1, (-1, 3)).mean(dim=(2, 4))
    if within is not None:
        pairs = pairs & (theirs[:, ALPHA::3, ALPHA::3] <= within)
    return _mean_over_pairs(differences, pairs)


def _backbones(reconstruction: Tensor, original: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N, CA and C of both `[B, L, 3, 3]`, 0 where a residue does not count, and which pairs count, `[B, L, L]`."""
    reconstruction, original = reconstruction[:, :, BACKBONE].float(), original[:, :, BACKBONE].float()
    present = (reconstruction + original).isfinite().flatten(2).all(dim=2)
    absent, pairs = ~present[..., None, None], present[:, :, None] & present[:, None]
    return reconstruction.masked_fill(absent, 0), original.masked_fill(absent, 0), pairs


def _in_local_frames(backbone: Tensor) -> Tensor:
    """CA of every residue in the frame of every residue: `[B, L, 3, 3]` to `[B, L of frames, L, 3]`."""
    nitrogen, alpha, carbon = backbone.unbind(dim=2)
    first = _unit(carbon - alpha)
    second = nitrogen - alpha
    second = _unit(second - (second * first).sum(dim=-1, keepdim=True) * first)
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)  # [B, L, 3, axis]
    return (alpha[:, None] - alpha[:, :, None]) @ axes


def _unit(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().sum(dim=-1, keepdim=True) + EPSILON**2).sqrt()


def _distances(points: Tensor) -> Tensor:
    """`[B, n, 3]` to `[B, n, n]`; the root has a gradient at 0 too."""
    return ((points[:, :, None] - points[:, None]).square().sum(dim=-1) + EPSILON).sqrt()


def _mean_over_pairs(values: Tensor, pairs: Tensor) -> Tensor:
    """Mean over chains of the means over the pairs of residues that count; `[B, L, L]` and bool `[B, L, L]`."""
    counts = pairs.sum(dim=(1, 2))
    means = (values * pairs).sum(dim=(1, 2)) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
