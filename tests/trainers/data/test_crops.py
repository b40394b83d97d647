"""Crops of clips, and chains that are bent."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import zoo
from zoo.trainers.data.crops import bent, clip, crop, crop_video
from zoo.trainers.data.options import StructureData, VideoData
from zoo.trainers.data.signals import Signals


def test_a_clip_takes_frames_at_the_frame_step():
    video = torch.arange(12, dtype=torch.uint8).view(1, 12, 1, 1).expand(3, 12, 4, 4)
    options = VideoData(frames=4, frame_stride=3, crop=4, flip=False)
    starts = {tuple(crop_video(video, options, np.random.default_rng(seed))[0, :, 0, 0].tolist()) for seed in range(40)}
    assert starts == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}


def test_the_last_frame_of_a_short_video_is_repeated():
    video = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(3, 3, 4, 4)
    assert clip(video, VideoData(frames=5), start=0)[0, :, 0, 0].tolist() == [0, 1, 2, 2, 2]


def test_of_a_long_video_only_the_first_frames_are_read(clips):
    signals = Signals(clips / "train", zoo.info("cosmos-dv").spec, VideoData(max_frames=7))
    assert [signals[number].shape[1] for number in range(3)] == [7, 7, 7]


def chain(residues: int) -> torch.Tensor:
    """A random walk with atoms around it, of which some are absent."""
    random = np.random.default_rng(0)
    atoms = np.cumsum(random.normal(size=(residues, 1, 3)), axis=0) + random.normal(size=(residues, 5, 3))
    atoms[3, 2] = atoms[5] = np.nan
    return torch.from_numpy(atoms).float()


def dihedral(*points: torch.Tensor) -> torch.Tensor:
    """Angles in degrees about the line between the second and the third of four points `[n, 3]`."""
    first, axis, last = (after - before for before, after in pairwise(points))
    one, other = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    sine = (torch.linalg.cross(one, other) * axis).sum(-1) / axis.norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (one * other).sum(-1)))


def test_a_bent_chain_has_other_torsions_and_the_same_bonds_and_angles():
    straight = chain(200)
    curved = bent(straight, 20.0, np.random.default_rng(1))
    assert torch.equal(curved.isnan(), straight.isnan())
    # Not CB or N to O: O alone turns with psi.
    inside = [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3), (1, 4), (2, 4)]
    across = [(2, 0), (1, 0), (2, 1), (4, 0), (4, 1)]
    for start, end, next_residue in [(*pair, 0) for pair in inside] + [(*pair, 1) for pair in across]:
        lengths = [
            (atoms[next_residue:, end] - atoms[: len(atoms) - next_residue, start]).norm(dim=-1).nan_to_num()
            for atoms in (straight, curved)
        ]
        torch.testing.assert_close(*lengths, atol=1e-4, rtol=1e-4)
    turned = [dihedral(atoms[:-1, 2], atoms[1:, 0], atoms[1:, 1], atoms[1:, 2]) for atoms in (straight, curved)]
    change = (turned[1] - turned[0] + 180) % 360 - 180
    assert 17 < change[change.isfinite()].std() < 23
    torch.testing.assert_close(bent(straight, 0.0, np.random.default_rng(1)), straight, equal_nan=True)


def test_a_recipe_bends_each_stretch_of_a_chain_otherwise():
    straight, spec, random = chain(40), zoo.info("dplm2-nano").spec, np.random.default_rng(0)
    first, second = (crop(straight, StructureData(max_residues=40, bend=30.0), spec, random) for _ in range(2))
    assert first.shape == second.shape == straight.shape
    assert not torch.allclose(first.nan_to_num(), second.nan_to_num())
    for degrees in (-1.0, 181.0):
        with pytest.raises(zoo.InputError, match=r"expected data\.bend from 0 to 180 degrees"):
            StructureData(bend=degrees)
