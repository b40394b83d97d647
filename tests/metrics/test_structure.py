"""Figures of structures, each against its own computation; RMSD is in `tests/modalities/test_structure.py`."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import zoo
from tests.support.paths import GOLDENS
from zoo.errors import InputError
from zoo.metrics.structure import STRUCTURE, angle_deviation, bond_deviation, lddt, rmsd, tm_score

FIGURES = [tm_score, lddt, bond_deviation, angle_deviation]
N, CA, C = 0, 1, 2


@pytest.fixture(scope="module")
def chain() -> Tensor:
    """253 residues of PDB entry 3bww `[253, 5, 3]`, the glycines without CB and all without O."""
    with np.load(GOLDENS / "foldseek-3di" / "golden.npz") as golden:
        atoms = torch.from_numpy(golden["3bww_A.input"])
    return torch.cat([atoms, torch.full((len(atoms), 1, 3), torch.nan)], dim=1)


@pytest.fixture(scope="module")
def turn() -> Tensor:
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    return matrix * matrix.det()


@pytest.fixture(scope="module")
def chains(chain, turn) -> tuple[Tensor, Tensor]:
    """Reconstructions and originals `[3, 120, 5, 3]`: noise, a drift along the chain, and a bend; atoms absent."""
    generator = torch.Generator().manual_seed(0)
    part = chain[:120]
    noisy = part + 0.8 * torch.randn(part.shape, generator=generator)
    drifting = part + 0.5 * torch.randn(120, 1, 3, generator=generator).cumsum(dim=0)
    bent = part.clone()
    bent[50:] = (part[50:] - part[50, CA]) @ turn + part[50, CA]
    reconstruction, original = torch.stack([noisy, drifting, bent]) @ turn + 30, torch.stack([part] * 3)
    original[0, 10, N] = torch.nan
    original[0, 20] = torch.nan
    reconstruction[0, 30, CA] = torch.nan
    reconstruction[1, 119, C] = torch.nan
    return reconstruction, original


def pairs(chains: tuple[Tensor, Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(*(batch.double().numpy() for batch in chains), strict=True))


# TM-score


def direct_tm_score(mobile: np.ndarray, fixed: np.ndarray) -> float:
    """The best that a general optimizer finds over turns and shifts, from many starts."""
    kept = ~np.isnan(mobile[:, CA] + fixed[:, CA]).any(axis=1)
    mobile, fixed = mobile[kept, CA], fixed[kept, CA]
    length = len(fixed)
    scale = max(1.24 * np.cbrt(length - 15) - 1.8, 0.5)

    def negative(move: np.ndarray) -> float:
        moved = Rotation.from_rotvec(move[:3]).apply(mobile) + move[3:]
        return -np.mean(1 / (1 + ((moved - fixed) ** 2).sum(axis=1) / scale**2))

    best = 0.0
    for start in range(0, length - 19, 20):
        part = slice(start, start + 20)
        rotation, _ = Rotation.align_vectors(
            fixed[part] - fixed[part].mean(axis=0), mobile[part] - mobile[part].mean(axis=0)
        )
        shift = fixed[part].mean(axis=0) - rotation.apply(mobile[part].mean(axis=0))
        found = scipy.optimize.minimize(negative, np.concatenate([rotation.as_rotvec(), shift]), method="BFGS")
        best = max(best, -found.fun)
    return best


def test_tm_score_is_the_largest_over_superpositions(chains):
    found = tm_score(*chains)
    expected = [direct_tm_score(*pair) for pair in pairs(chains)]
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert found[0] > 0.8 and 0.4 < found[2] < 0.75


def test_tm_score_agrees_with_tm_align_where_residues_correspond_by_position(chain, turn):
    tmtools = pytest.importorskip("tmtools")
    for noise in (0.3, 1.0):
        generator = torch.Generator().manual_seed(0)
        moved = (chain + noise * torch.randn(chain.shape, generator=generator)) @ turn - 12
        points = [part[:, CA].double().numpy() for part in (moved, chain)]
        aligned = tmtools.tm_align(*points, "A" * len(chain), "A" * len(chain)).tm_norm_chain2
        assert tm_score(moved, chain).item() == pytest.approx(aligned, abs=2e-4)


def test_a_moved_chain_has_a_tm_score_of_one_and_its_mirror_image_has_not(chain, turn):
    moved = chain @ turn - 8
    assert tm_score(moved, chain).item() == pytest.approx(1, abs=1e-5)
    assert tm_score(-moved, chain) < 0.4
    for residues in (1, 2, 3, 7, 20):
        assert tm_score(moved[:residues], chain[:residues]).item() == pytest.approx(1, abs=1e-4)


# lDDT


def direct_lddt(mobile: np.ndarray, fixed: np.ndarray, columns: list[int]) -> float:
    kept = ~np.isnan(mobile[:, columns] + fixed[:, columns]).any(axis=(1, 2))
    mobile, fixed = (atoms[kept][:, columns].reshape(-1, 3) for atoms in (mobile, fixed))
    residue = np.repeat(np.arange(kept.sum()), len(columns))
    distances = [np.linalg.norm(atoms[:, None] - atoms, axis=2) for atoms in (mobile, fixed)]
    near = (distances[1] <= 15) & (residue[:, None] != residue)
    errors = np.abs(distances[0] - distances[1])[near]
    return float(np.mean([(errors <= bound).mean() for bound in (0.5, 1, 2, 4)]))


@pytest.mark.parametrize("atoms", [("CA",), ("N", "CA", "C")])
def test_lddt_is_what_its_definition_gives(chains, atoms):
    columns = [("N", "CA", "C").index(name) for name in atoms]
    expected = [direct_lddt(*pair, columns) for pair in pairs(chains)]
    assert 0.4 < min(expected) < max(expected) < 0.9
    assert lddt(*chains, atoms=atoms).tolist() == pytest.approx(expected, abs=1e-4)


def test_lddt_needs_no_superposition_but_two_residues_near_each_other(chain, turn):
    assert lddt(-chain @ turn + 5, chain).item() == pytest.approx(1)
    assert lddt(chain[:1], chain[:1]).isnan()
    apart = chain[:2].clone()
    apart[1] += 40
    assert lddt(apart, apart).isnan()
    assert lddt(chain[:2], apart).isnan() and lddt(apart, chain[:2]) == 0


# Bonds and angles


def direct_geometry(mobile: np.ndarray, fixed: np.ndarray) -> tuple[float, float]:
    """Mean deviation of lengths, and of angles from the law of cosines."""

    def length(atoms: np.ndarray, one: tuple[int, int], other: tuple[int, int]) -> float:
        return math.dist(atoms[one], atoms[other])

    def angle(atoms: np.ndarray, one: tuple[int, int], middle: tuple[int, int], other: tuple[int, int]) -> float:
        a, b, c = length(atoms, one, middle), length(atoms, middle, other), length(atoms, one, other)
        return math.degrees(math.acos((a * a + b * b - c * c) / (2 * a * b)))

    lengths, angles = [], []
    for i in range(len(fixed)):
        lengths += [((i, N), (i, CA)), ((i, CA), (i, C))]
        angles += [((i, N), (i, CA), (i, C))]
        if i + 1 < len(fixed) and length(fixed, (i, C), (i + 1, N)) <= 2:
            lengths += [((i, C), (i + 1, N))]
            angles += [((i, CA), (i, C), (i + 1, N)), ((i, C), (i + 1, N), (i + 1, CA))]
    return tuple(
        float(np.nanmean([abs(figure(mobile, *names) - figure(fixed, *names)) for names in places]))
        for figure, places in ((length, lengths), (angle, angles))
    )


def test_deviations_of_bonds_and_angles_are_those_of_their_definitions(chains):
    bonds, angles = zip(*(direct_geometry(*pair) for pair in pairs(chains)), strict=True)
    assert bonds[0] > 0.3 > bonds[1] > 0.05 and angles[0] > 10
    assert bond_deviation(*chains).tolist() == pytest.approx(bonds, rel=1e-4, abs=1e-5)
    assert angle_deviation(*chains).tolist() == pytest.approx(angles, rel=1e-4, abs=1e-3)


def test_a_gap_in_the_chain_is_no_bond(chain):
    original = torch.cat([chain[:40], chain[60:100]])  # as of a file in which 20 residues are not resolved
    reconstruction = original.clone()
    reconstruction[40:] += 25
    assert bond_deviation(reconstruction, original).item() == pytest.approx(0, abs=1e-5)
    assert angle_deviation(reconstruction, original).item() == pytest.approx(0, abs=1e-3)
    torn = chain.clone()
    torn[40:] += torch.tensor([25.0, 0, 0])
    assert bond_deviation(torn, chain) > 20 / (3 * 253)


def test_one_residue_has_two_bonds_and_an_angle(chain):
    original = chain[:1]
    reconstruction = original.clone()
    reconstruction[0, C] = original[0, CA] + 1.5 * (original[0, C] - original[0, CA])
    expected = 0.5 * (original[0, C] - original[0, CA]).norm().item() / 2
    assert bond_deviation(reconstruction, original).item() == pytest.approx(expected, rel=1e-5)
    assert angle_deviation(reconstruction, original).item() == pytest.approx(0, abs=1e-3)


# All


@pytest.mark.parametrize("figure", FIGURES)
def test_a_chain_has_the_same_figure_alone_and_in_a_batch(chains, figure):
    together = figure(*chains)
    assert together.shape == (3,) and together.dtype == torch.float32 and together.isfinite().all()
    alone = torch.stack([figure(*(batch[i] for batch in chains)) for i in range(3)])
    assert alone.tolist() == pytest.approx(together.tolist(), abs=1e-6)


@pytest.mark.parametrize("figure", FIGURES)
def test_chains_without_an_atom_in_both_have_no_figure(chain, figure):
    one, other = chain[None].clone(), chain[None].clone()
    one[:, ::2] = torch.nan
    other[:, 1::2] = torch.nan
    assert figure(one, other).isnan().tolist() == [True]


@pytest.mark.parametrize("figure", FIGURES)
def test_atoms_that_all_lie_in_one_place_have_a_figure(chain, figure):
    assert figure(torch.zeros_like(chain), chain).isfinite()


@pytest.mark.parametrize("figure", FIGURES)
def test_chains_that_do_not_pair_are_refused(chains, figure):
    reconstruction, original = chains
    for bad, message in [
        (reconstruction[..., :3, :], r"expected reconstruction as \[batch, residues, 5, 3\], got \[3, 120, 3, 3\]"),
        (reconstruction[:, 1:], r"original's shape \[3, 120, 5, 3\], got \[3, 119, 5, 3\]"),
        (reconstruction / 0, "infinite coordinate"),
        (reconstruction.nan_to_num().long(), "got torch.int64"),
    ]:
        with pytest.raises(InputError, match=message):
            figure(bad, original)


@pytest.mark.parametrize("atoms", ["CA", (), ("CA", "SG")])
def test_unknown_atoms_are_refused(chain, atoms):
    for figure in (rmsd, lddt):
        with pytest.raises(InputError, match="names among N, CA, C, CB, O"):
            figure(chain, chain, atoms=atoms)


def test_every_metric_of_structures_gives_the_figure_that_it_is_named_for(chains):
    spec = zoo.info("wetok-nano").spec
    assert list(STRUCTURE) == ["rmsd", "ca_rmsd", "tm_score", "lddt", "bond_deviation", "angle_deviation"]
    for name, metric in STRUCTURE.items():
        expected = rmsd(*chains, atoms=("CA",)) if name == "ca_rmsd" else globals()[name](*chains)
        streaming = metric.streaming(spec)
        streaming.update(*chains)
        assert streaming.compute().item() == pytest.approx(expected.double().mean().item())
        assert metric.missing() is None
