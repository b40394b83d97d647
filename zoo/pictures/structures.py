"""Protein structures for figures: superposition, and the trace of the CA atoms as curves and as an image.

A chain is float `[residues, 3]`, its CA atoms in angstrom, NaN where one is absent.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.modalities.structure import ATOMS

LONGEST_BOND = 8.0  # angstrom; CA atoms farther apart than this are the two sides of a gap in the chain
BAND_SHIFT = 2.0  # angstrom by which the first chain is moved away from the viewer, so that it lies below the others
FEWEST_FOR_SUPERPOSITION = 3
# Widths of lines in a drawing that is 400 units wide: of the first chain, and of the others.
BAND_WIDTH, LINE_WIDTH = 8.0, 3.0
BAND_COLOR = (208, 208, 202)
RAINBOW_HUE = 2 / 3  # of the start of a chain
OVERSAMPLING, POINTS_PER_BOND = 3, 8  # of images of traces


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


def rainbow(share: float) -> tuple[int, int, int]:
    """Return the red, green and blue of a place in a chain: blue at its start (0), red at its end (1)."""
    red, green, blue = colorsys.hls_to_rgb(RAINBOW_HUE * (1 - share), 0.5, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


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
        curves = bezier_curves(turned)
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


def trace_image(chains: Sequence[Tensor], side: int) -> Image.Image:
    """Draw chains on one another in a white square of `side` pixels, from the side where the first is broadest.

    Args:
        chains: as in `trace_bonds`; the first is a wide grey band, the others have the colours of `rainbow`.
        side: width and height in pixels.
    """
    bonds = trace_bonds(chains)
    size = side * OVERSAMPLING
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    corners = np.concatenate([bond.points for bond in bonds]) if bonds else np.zeros((1, 2))
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 0.92 * size / max(float((high - low).max()), 1.0)
    for bond in bonds:
        places = (curve_points(bond.points, POINTS_PER_BOND) - (low + high) / 2) * (scale, -scale) + size / 2
        color = rainbow(bond.residue / max(len(chains[0]) - 2, 1)) if bond.chain else BAND_COLOR
        width = bond.width * size / 400
        draw.line([(x, y) for x, y in places.tolist()], fill=color, width=max(1, round(width)), joint="curve")
        for x, y in places[[0, -1]].tolist():
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=color)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def curve_points(curves: np.ndarray, count: int) -> np.ndarray:
    """Return `count` points from the start to the end of each cubic Bézier curve `[..., 4, axes]`."""
    times = np.linspace(0, 1, count)[:, None]
    rest = 1 - times
    return np.concatenate([rest**3, 3 * times * rest**2, 3 * times**2 * rest, times**3], axis=1) @ curves


def bezier_curves(points: Tensor) -> Tensor:
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
