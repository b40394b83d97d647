"""The samples that ship with zoo."""

import pytest
import soundfile
import torch
from PIL import Image

import zoo
from benchmarks import make_samples
from zoo import media
from zoo.demo.samples import FOLDER, samples

ALPHA = 1  # of a residue's atoms  # of a residue's atoms


def test_samples_fit_their_modality():
    assert len(samples("image")) >= 3
    for sample in samples("image").values():
        image = sample if isinstance(sample, Image.Image) else Image.open(sample)
        assert image.size == (256, 256)
    for path in samples("audio").values():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert 2 < info.duration < 5
    for path in samples("video").values():
        ((window, frame_rate),) = media.read_video(path, 100)
        assert (tuple(window.shape), frame_rate) == ((3, 33, 128, 128), 24)
    for path in samples("structure").values():
        assert 40 <= len(media.read_structure(path).coordinates) <= 80
    with pytest.raises(zoo.InputError, match="no samples of 'smell'"):
        samples("smell")


def test_the_sample_protein_is_a_chain_that_folds_without_clashes():
    atoms = media.read_structure(samples("structure")["bundle"]).coordinates
    assert (atoms[1:, 0] - atoms[:-1, 2]).norm(dim=-1).sub(1.329).abs().max() < 2e-3  # peptide bonds
    assert atoms[:, ALPHA].diff(dim=0).norm(dim=-1).sub(3.80).abs().max() < 0.02
    distances = torch.cdist(atoms.flatten(0, 1), atoms.flatten(0, 1)).unflatten(0, (-1, 5)).unflatten(2, (-1, 5))
    nearest = distances.amin(dim=(1, 3))
    assert nearest.triu(3)[nearest.triu(3) > 0].min() > 3.0
    assert (torch.cdist(atoms[:17, ALPHA], atoms[-17:, ALPHA]) < 10).sum() > 20  # first and last helix touch


def test_the_sample_protein_is_made_anew_as_it_is():
    made = torch.from_numpy(make_samples.backbone(make_samples.BUNDLE)).float()
    assert torch.allclose(made, media.read_structure(samples("structure")["bundle"]).coordinates, atol=6e-4)


def test_the_computed_images_are_made_anew_as_they_are():
    for name, made in (("lake", make_samples.lake()), ("spheres", make_samples.spheres())):
        with Image.open(FOLDER / f"{name}.png") as shipped:
            assert shipped.tobytes() == made.tobytes()
