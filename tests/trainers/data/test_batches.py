"""Files to crops, in an order that the seed decides."""

import dataclasses

import numpy as np
import pytest
import torch

import zoo
from tests.support.recipes import AUDIO, IMAGE, STRUCTURE, VIDEO, losses
from zoo.errors import InputError, MediaError
from zoo.media import center_crop, read_image, write_image
from zoo.sources.tables import Table
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.data.batches import Crops, bucketed, training_batches
from zoo.trainers.data.options import ImageData
from zoo.trainers.data.signals import Pairs, Signals


def test_accumulated_passes_draw_the_same_samples_as_one_large_batch(images):
    whole, parts = load_recipe({}, {**IMAGE, "batch_size": 4}), load_recipe({}, {**IMAGE, "accumulate": 2})
    spec = create_tokenizer(whole).spec
    crops = Crops(Signals(images / "train", spec, whole.data), whole.data, seed=0)
    large, small = training_batches(crops, whole, step=0), training_batches(crops, parts, step=0)
    assert torch.equal(torch.cat(list(large)), torch.cat(list(small)))


def test_a_damaged_file_is_skipped_and_named(images, tmp_path, capfd):
    (images / "train" / "broken.png").write_bytes(b"no picture")
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run")
    assert result.step == IMAGE["steps"]
    error = capfd.readouterr().err
    assert "broken.png" in error
    assert "1 of 7 files skipped" in error


def test_a_damaged_file_beyond_the_cache_is_replaced_by_the_next(images):
    (images / "train" / "1.png").write_bytes(b"no picture")
    signals = Signals(images / "train", zoo.info("wetok").spec, ImageData(cache_gib=0))
    assert torch.equal(signals[1], signals[2])
    assert signals.damaged == {1}


def test_a_folder_without_a_readable_file_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="none of the 1"):
        Signals(tmp_path, zoo.info("wetok").spec, ImageData())


@pytest.fixture
def samples(images):
    """Folder with the middle 24x24 of two training pictures, inverted, and one more that has no original."""
    folder = images.parent / "samples"
    folder.mkdir()
    for number in (1, 4, 9):
        picture = read_image(images / "train" / f"{min(number, 5)}.png")
        write_image(folder / f"{number}.webp", (255 - center_crop(picture, 24)).float() / 255)
    return folder


def test_pairs_are_cut_alike_and_inputs_without_an_original_are_skipped_and_named(images, samples, capfd):
    options = ImageData(inputs=str(samples), crop=16, flip=True)
    pairs = Pairs(images / "train", zoo.info("wetok").spec, options)
    assert "9 is not an image file" in capfd.readouterr().err
    assert len(pairs) == 3 and pairs.damaged == {2}
    for number in range(6):
        original, given = Crops(pairs, options, seed=0)[number].chunk(2)
        assert original.shape == (3, 16, 16)
        assert (original.float() + given.float() - 255).abs().mean() < 12  # but for what WebP loses
    large = dataclasses.replace(options, shorter_side=48)
    assert Pairs(images / "train", zoo.info("wetok").spec, large)[0].shape == (6, 48, 48)


def test_losses_compare_what_is_made_of_an_input_with_its_original(images, samples, tmp_path):
    values = {**IMAGE, "losses": {"l2": 1.0}, "optimizer.learning_rate": 0.0, "steps": 2, "data.flip": False}
    values |= {"data.shorter_side": 24, "data.crop": 24, "batch_size": 6}
    result = train({}, {**values, "data.inputs": str(samples)}, data=images, run_dir=tmp_path / "run")
    tokenizer = zoo.load(result.weights).train()
    pairs = [Pairs(images / "train", tokenizer.spec, ImageData(inputs=str(samples)))[index] for index in (0, 1, 0)]
    original, given = (torch.stack(pairs).float() / 255).chunk(2, dim=1)
    with torch.no_grad():
        expected = (tokenizer(given).reconstruction - original).square().mean()
    assert losses(result.run_dir)[1]["l2"] == pytest.approx(float(expected), rel=5e-3)
    with pytest.raises(InputError, match="takes folders of files, of originals and of inputs, got owner/name and"):
        Pairs(Table("owner/name"), tokenizer.spec, ImageData(inputs=str(samples)))
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        train({}, {**values, "data.inputs": "nowhere"}, data=images, run_dir=tmp_path / "other")


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_the_order_of_the_data_depends_on_the_seed_alone(values, folder, request):
    data = request.getfixturevalue(folder)
    recipe = load_recipe({}, values)
    spec = create_tokenizer(recipe).spec

    def numbered(seed, cache_gib):
        options = dataclasses.replace(recipe.data, cache_gib=cache_gib)
        crops = Crops(Signals(data / "train", spec, options), options, seed)
        return torch.stack([crops[number] for number in range(12)])

    torch.manual_seed(1)
    first = numbered(0, cache_gib=1)
    torch.manual_seed(2)
    assert torch.equal(first, numbered(0, cache_gib=0))
    assert not torch.equal(first, numbered(1, cache_gib=1))


def test_a_pass_over_the_data_takes_every_file_once(images):
    recipe = load_recipe({}, {**IMAGE, "data.crop": 24, "data.flip": False})
    signals = Signals(images / "train", zoo.info("wetok").spec, recipe.data)
    crops = Crops(signals, recipe.data, seed=0)
    seen = {
        index
        for number in range(6)
        for index in range(6)
        if any(torch.equal(crops[number], signals[index][..., left : left + 24]) for left in range(17))
    }
    assert seen == set(range(6))


def test_a_short_sound_is_repeated_end_to_end(speech):
    recipe = load_recipe({}, {**AUDIO, "data.seconds": 1.0, "data.peak_db": [0, 0]})
    signals = Signals(speech / "train", create_tokenizer(recipe).spec, recipe.data)
    crop = Crops(signals, recipe.data, seed=0)[0]
    assert crop.shape == (1, 24000)
    assert torch.equal(crop[:, :12000], crop[:, 12000:])
    assert crop.abs().max() == 1


def test_pictures_are_resized_to_the_shorter_side_as_they_are_read(images):
    recipe = load_recipe({}, {**IMAGE, "data.shorter_side": 20, "data.crop": 20})
    signals = Signals(images / "train", create_tokenizer(recipe).spec, recipe.data)
    assert all(min(signals[index].shape[1:]) == 20 for index in range(len(signals)))


def test_a_camera_moves_over_stills(images):
    recipe = load_recipe({}, {**VIDEO, "data.stills": True, "data.crop": 16, "data.frames": 5})
    crops = Crops(Signals(images / "train", create_tokenizer(recipe).spec, recipe.data), recipe.data, seed=0)
    clips = torch.stack([crops[number] for number in range(6)])
    assert clips.shape == (6, 3, 5, 16, 16) and clips.dtype == torch.uint8
    assert (clips[:, :, 0] != clips[:, :, 4]).any()
    assert torch.equal(clips[0], crops[0])


def test_chains_are_cut_and_padded_with_absent_residues(chains):
    recipe = load_recipe({}, {**STRUCTURE, "data.bucket": 1, "batch_size": 7, "steps": 1})
    signals = Signals(chains / "train", create_tokenizer(recipe).spec, recipe.data)
    (batch,) = training_batches(Crops(signals, recipe.data, seed=0), recipe, step=0)
    assert batch.shape == (7, 24, 5, 3)
    lengths = (~batch.isnan().flatten(2).any(dim=2)).sum(dim=1)
    assert sorted(lengths.tolist()) == [12, 16, 20, 24, 24, 24, 24]


def test_chains_of_a_batch_are_about_as_long(chains):
    recipe = load_recipe({}, {**STRUCTURE, "data.bucket": 7, "data.max_residues": 99, "steps": 3})
    signals = Signals(chains / "train", create_tokenizer(recipe).spec, recipe.data)
    batches = training_batches(Crops(signals, recipe.data, seed=0), recipe, step=0)
    assert [batch.shape[1] for batch in batches] == [16, 24, 32]


def test_bucketing_keeps_every_entry_and_turns_at_each_bucket():
    order = np.random.default_rng(0).permutation(10)
    sizes = np.arange(10) * 7
    found = bucketed(order, sizes, 4)
    assert sorted(found) == list(range(10))
    assert list(found[:4]) == sorted(order[:4])
    assert list(found[4:8]) == sorted(order[4:8], reverse=True)
    assert list(found[8:]) == sorted(order[8:])
