"""The samples that ship with zoo."""

import pytest
import soundfile
import torch
from PIL import Image

import zoo
from benchmarks import make_samples
from zoo import media
from zoo.demo.samples import FOLDER, samples

ALPHA = 1  # of a residue's atoms


def test_samples_fit_their_modality():
    assert len(samples("image")) >= 3
    for sample in samples("image").values():
        image = sample if isinstance(sample, Image.Image) else Image.open(sample)
        assert image.size == (256, 256)
    for path in samples("audio").values():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert 2 < info.duration < (8 if path.stem == "strings" else 5)
    for path in samples("video").values():
        ((window, frame_rate),) = media.read_video(path, 100)
        assert (tuple(window.shape), frame_rate) == ((3, 33, 128, 128), 24)
    for path in samples("structure").values():
        assert 40 <= len(media.read_structure(path).coordinates) <= 150
    with pytest.raises(zoo.InputError, match="no samples of 'smell'"):
        samples("smell")


def test_the_sample_protein_is_a_chain_without_gaps_or_clashes():
    atoms = media.read_structure(samples("structure")["globin"]).coordinates
    assert (atoms[1:, 0] - atoms[:-1, 2]).norm(dim=-1).sub(1.329).abs().max() < 0.02  # peptide bonds
    assert atoms[:, ALPHA].diff(dim=0).norm(dim=-1).sub(3.80).abs().max() < 0.1
    distances = torch.cdist(atoms[:, ALPHA], atoms[:, ALPHA])
    assert distances.triu(3)[distances.triu(3) > 0].min() > 3.6


def test_the_sample_protein_is_made_anew_as_it_is():
    made, shipped = make_samples.globin(), media.read_structure(samples("structure")["globin"])
    assert torch.allclose(made.coordinates, shipped.coordinates, atol=6e-4, equal_nan=True)
    assert made.residue_names == shipped.residue_names


def test_the_computed_images_are_made_anew_as_they_are():
    for name, made in (("lake", make_samples.lake()), ("spheres", make_samples.spheres())):
        with Image.open(FOLDER / f"{name}.png") as shipped:
            assert shipped.tobytes() == made.tobytes()


def test_the_computed_music_is_made_anew_as_it_is():
    shipped, _ = soundfile.read(FOLDER / "strings.flac")
    assert abs(shipped - make_samples.prelude()).max() < 2**-14
