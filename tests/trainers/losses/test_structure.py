"""Losses of backbones against their formulas, and what does not change them."""

import math

import numpy as np
import pytest
import torch

from zoo.trainers.losses.structure import distance_map, fape


@pytest.fixture
def pair():
    """Two random chains `[2, 9, 5, 3]`, the second close to the first; residues of the original are missing."""
    generator = torch.Generator().manual_seed(0)
    original = 4 * torch.randn(2, 9, 5, 3, generator=generator)
    reconstruction = original + torch.randn(2, 9, 5, 3, generator=generator)
    original[0, 3] = torch.nan
    original[1, 6:] = torch.nan
    return reconstruction, original


def moved(structure: torch.Tensor) -> torch.Tensor:
    angle = 0.7
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    return structure @ rotation.T + torch.tensor([3.0, -8.0, 20.0])


def frame(residue: np.ndarray) -> np.ndarray:
    first = residue[2] - residue[1]
    first /= np.linalg.norm(first)
    second = residue[0] - residue[1]
    second -= second @ first * first
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


@pytest.mark.parametrize("clamp", [10.0, None])
def test_fape_is_the_published_formula(pair, clamp):
    ours, theirs = (structure.double().numpy() for structure in pair)
    chains = []
    for a, b in zip(ours, theirs, strict=True):
        there = [i for i in range(9) if np.isfinite(b[i]).all()]
        errors = [
            np.linalg.norm(frame(a[i]) @ (a[j, 1] - a[i, 1]) - frame(b[i]) @ (b[j, 1] - b[i, 1]))
            for i in there
            for j in there
        ]
        chains.append(np.mean(np.minimum(np.sqrt(np.square(errors) + 1e-4), clamp or np.inf) / 10))
    assert float(fape(*pair, clamp)) == pytest.approx(np.mean(chains), rel=1e-4)


@pytest.mark.parametrize("within", [None, 6.0])
def test_the_distance_map_is_the_mean_difference_of_backbone_distances(pair, within):
    chains = []
    for a, b in zip(*(structure[:, :, :3].double().numpy() for structure in pair), strict=True):
        there = np.flatnonzero(np.isfinite(b).all(axis=(1, 2)))
        differences = [
            abs(np.linalg.norm(a[i, m] - a[j, n]) - np.linalg.norm(b[i, m] - b[j, n]))
            for i in there
            for j in there
            if within is None or np.linalg.norm(b[i, 1] - b[j, 1]) <= within
            for m in range(3)
            for n in range(3)
        ]
        chains.append(np.mean(differences))
    assert float(distance_map(*pair, within)) == pytest.approx(np.mean(chains), rel=2e-3)


@pytest.mark.parametrize("loss", [fape, distance_map])
def test_a_structure_loss_does_not_see_where_a_structure_is(loss, pair):
    reconstruction, original = pair
    expected = pytest.approx(float(loss(reconstruction, original)), rel=1e-4)
    assert float(loss(moved(reconstruction), original)) == expected
    assert float(loss(moved(original), original)) < 2e-3


def test_fape_tells_a_mirror_image_apart(pair):
    _, original = pair
    mirrored = original * torch.tensor([1.0, 1.0, -1.0])
    assert float(fape(mirrored, original)) > 0.1
    assert float(distance_map(mirrored, original)) < 1e-3


@pytest.mark.parametrize("loss", [fape, distance_map])
def test_padding_does_not_change_a_structure_loss(loss, pair):
    padding = torch.full((2, 4, 5, 3), torch.nan)
    padded = (torch.cat([structure, padding], dim=1) for structure in pair)
    assert float(loss(*padded)) == pytest.approx(float(loss(*pair)), rel=1e-5)


@pytest.mark.parametrize("loss", [fape, distance_map])
def test_a_structure_loss_has_a_finite_gradient(loss, pair):
    reconstruction, original = pair
    collapsed = torch.zeros_like(reconstruction)
    collapsed[0, 3] = torch.nan
    for start in (reconstruction, collapsed):
        start = start.clone().requires_grad_()
        loss(start, original).backward()
        assert start.grad.isfinite().all()
