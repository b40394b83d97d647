"""Files to crops, in an order that the seed decides."""

import dataclasses

import pytest
import torch

import zoo
from tests.training.recipes import AUDIO, IMAGE, VIDEO
from zoo.errors import MediaError
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.data import Crops, Files, training_batches
from zoo.trainers.recipe import ImageData


def test_accumulated_passes_draw_the_same_samples_as_one_large_batch(images):
    whole, parts = load_recipe({}, {**IMAGE, "batch_size": 4}), load_recipe({}, {**IMAGE, "accumulate": 2})
    spec = create_tokenizer(whole).spec
    crops = Crops(Files(images / "train", spec, whole.data), whole.data, seed=0)
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
    files = Files(images / "train", zoo.info("wetok").spec, ImageData(cache_gib=0))
    assert torch.equal(files[1], files[2])
    assert files.damaged == {1}


def test_a_folder_without_a_readable_file_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="none of the 1"):
        Files(tmp_path, zoo.info("wetok").spec, ImageData())


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_the_order_of_the_data_depends_on_the_seed_alone(values, folder, request):
    data = request.getfixturevalue(folder)
    recipe = load_recipe({}, values)
    spec = create_tokenizer(recipe).spec

    def numbered(seed, cache_gib):
        options = dataclasses.replace(recipe.data, cache_gib=cache_gib)
        crops = Crops(Files(data / "train", spec, options), options, seed)
        return torch.stack([crops[number] for number in range(12)])

    torch.manual_seed(1)
    first = numbered(0, cache_gib=1)
    torch.manual_seed(2)
    assert torch.equal(first, numbered(0, cache_gib=0))
    assert not torch.equal(first, numbered(1, cache_gib=1))


def test_a_pass_over_the_data_takes_every_file_once(images):
    recipe = load_recipe({}, {**IMAGE, "data.crop": 24, "data.flip": False})
    files = Files(images / "train", zoo.info("wetok").spec, recipe.data)
    crops = Crops(files, recipe.data, seed=0)
    seen = {
        index
        for number in range(6)
        for index in range(6)
        if any(torch.equal(crops[number], files[index][..., left : left + 24]) for left in range(17))
    }
    assert seen == set(range(6))


def test_a_short_sound_is_repeated_end_to_end(speech):
    recipe = load_recipe({}, {**AUDIO, "data.seconds": 1.0, "data.peak_db": [0, 0]})
    files = Files(speech / "train", create_tokenizer(recipe).spec, recipe.data)
    crop = Crops(files, recipe.data, seed=0)[0]
    assert crop.shape == (1, 24000)
    assert torch.equal(crop[:, :12000], crop[:, 12000:])
    assert crop.abs().max() == 1


def test_pictures_are_resized_to_the_shorter_side_as_they_are_read(images):
    recipe = load_recipe({}, {**IMAGE, "data.shorter_side": 20, "data.crop": 20})
    files = Files(images / "train", create_tokenizer(recipe).spec, recipe.data)
    assert all(min(files[index].shape[1:]) == 20 for index in range(len(files)))


def test_a_camera_moves_over_stills(images):
    recipe = load_recipe({}, {**VIDEO, "data.stills": True, "data.crop": 16, "data.frames": 5})
    crops = Crops(Files(images / "train", create_tokenizer(recipe).spec, recipe.data), recipe.data, seed=0)
    clips = torch.stack([crops[number] for number in range(6)])
    assert clips.shape == (6, 3, 5, 16, 16) and clips.dtype == torch.uint8
    assert (clips[:, :, 0] != clips[:, :, 4]).any()
    assert torch.equal(clips[0], crops[0])
