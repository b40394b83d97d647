"""Shards and tables give what a folder of the same files gives."""

import dataclasses
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.support.data import to_shards, to_table
from tests.support.media import helix
from tests.support.recipes import AUDIO, IMAGE, STRUCTURE, VIDEO, losses
from zoo.errors import InputError, MediaError
from zoo.media import MediaBytes, read_audio, read_structure, write_structure
from zoo.sources.locations import MediaFolder, Shards
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.data.batches import Crops, training_batches
from zoo.trainers.data.options import AudioData
from zoo.trainers.data.signals import Signals
from zoo.trainers.data.splits import training_and_validation

KINDS = [(IMAGE, "images"), (AUDIO, "speech"), (VIDEO, "clips"), (STRUCTURE, "chains")]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the package datasets (extra: scale) is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def opened(values, data) -> Signals:
    recipe = load_recipe({}, values)
    return Signals(data, create_tokenizer(recipe).spec, dataclasses.replace(recipe.data, cache_gib=0))


def assert_same(ours: Signals, theirs: Signals) -> None:
    assert len(ours) == len(theirs)
    assert ours.sizes.tolist() == theirs.sizes.tolist()
    for index in range(len(theirs)):
        assert torch.equal(ours[index].nan_to_num(), theirs[index].nan_to_num())


@pytest.mark.parametrize("values, folder", KINDS)
def test_shards_hold_what_the_folder_holds(values, folder, request, tmp_path):
    files = request.getfixturevalue(folder) / "train"
    to_shards(files, f"{tmp_path}/shards/part-{{}}.tar", samples_each=2)
    expected = opened(values, files)
    assert_same(opened(values, tmp_path / "shards"), expected)
    assert_same(opened(values, f"{tmp_path}/shards/part-{{0..{(len(expected) + 1) // 2 - 1}}}.tar"), expected)


@pytest.mark.parametrize("values, folder, kind", [(*KINDS[0], "Image"), (*KINDS[1], "Audio"), (*KINDS[2], "Video")])
def test_tables_hold_what_the_folder_holds(values, folder, kind, datasets, request, tmp_path):
    files = request.getfixturevalue(folder) / "train"
    rows, expected = to_table(datasets, files, kind), opened(values, files)
    rows.save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "parquet" / "data" / "0.parquet")
    to_table(datasets, files, None).to_parquet(tmp_path / "plain.parquet")
    assert_same(opened(values, tmp_path / "saved"), expected)
    assert_same(opened(values, tmp_path / "parquet"), expected)
    assert_same(opened(values, tmp_path / "parquet" / "data" / "0.parquet"), expected)
    assert_same(opened(values, f"hf://{tmp_path}/plain.parquet::media"), expected)


def test_a_table_may_name_files(datasets, images, tmp_path):
    paths = [str(path) for path in sorted((images / "train").iterdir())]
    datasets.Dataset.from_dict({"file": paths}).to_parquet(tmp_path / "names" / "0.parquet")
    ours, theirs = opened(IMAGE, f"hf://{tmp_path}/names:train:file"), opened(IMAGE, images / "train")
    assert all(torch.equal(ours[index], theirs[index]) for index in range(6))


def test_pictures_of_shards_and_tables_are_stills_for_video(datasets, images, tmp_path):
    values = {**VIDEO, "data": {"stills": True, "crop": 16, "frames": 5}}
    to_shards(images / "train", f"{tmp_path}/shards/{{}}.tar")
    to_table(datasets, images / "train", "Image").save_to_disk(tmp_path / "saved")
    expected = opened(values, images / "train")
    assert_same(opened(values, tmp_path / "shards"), expected)
    assert_same(opened(values, tmp_path / "saved"), expected)


def test_a_member_counts_whose_whole_suffix_is_of_the_modality(images, tmp_path):
    pictures = [path.read_bytes() for path in sorted((images / "train").iterdir())]
    names = ("__meta__/x.png", "a/0.json", "a/0.mask.png", "a/0.PNG", "a/0.jpg", "a/1.seg.png", "a/2.png", "a/2.txt")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, content in zip(names, [*pictures, *pictures], strict=False):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    files, folder = opened(IMAGE, tmp_path / "0.tar"), opened(IMAGE, images / "train")
    assert torch.equal(files[0], folder[3])
    assert torch.equal(files[1], folder[0])
    assert len(files) == 3 and files.damaged == {1}  # a/1, which has 1.seg.png alone


def test_a_damaged_sample_is_skipped_counted_and_named(images, tmp_path, capfd):
    (images / "train" / "2.png").write_bytes(b"no picture")
    for part in ("train", "val"):
        to_shards(images / part, f"{tmp_path}/shards/{part}/{{}}.tar")
    result = train({}, IMAGE, data=tmp_path / "shards", run_dir=tmp_path / "run")
    assert result.metrics["psnr"] > 0
    error = capfd.readouterr().err
    assert f"skipped {tmp_path}/shards/train/0.tar: 2.png" in error
    assert "1 of 6 files skipped" in error


def cut_in_a_picture(content: bytes) -> bytes:
    return content[: content.rindex(b"IDAT") + 10]


def overwritten_header(content: bytes) -> bytes:
    at = content.index(b"3.png")
    return content[:at] + bytes(range(1, 200)) + content[at + 199 :]


@pytest.mark.parametrize(
    "damage, whole, message",
    [
        (cut_in_a_picture, 3, "0.tar: 3.png: cut short"),
        (overwritten_header, 3, "0.tar: damaged: nothing can be read after byte"),
        (lambda content: b"no tar", 0, "0.tar: damaged: nothing can be read after byte 0"),
        (lambda content: b"", 0, "0.tar: damaged: nothing can be read after byte 0"),
    ],
)
def test_of_a_damaged_shard_the_rest_is_skipped(damage, whole, message, images, tmp_path, capfd):
    to_shards(images / "train", f"{tmp_path}/shards/{{}}.tar")
    shard = tmp_path / "shards" / "0.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    recipe = load_recipe({}, IMAGE)
    files, folder = (
        Signals(data, create_tokenizer(recipe).spec, recipe.data) for data in (shard.parent, images / "train")
    )
    assert message in capfd.readouterr().err
    readable = [index for index in range(len(files)) if index not in files.damaged]
    assert len(readable) == whole + 2
    for index, original in zip(readable, [*range(whole), 4, 5], strict=True):
        assert torch.equal(files[index], folder[original])


def test_a_damaged_row_is_skipped_counted_and_named(datasets, images, tmp_path, capfd):
    (images / "train" / "2.png").write_bytes(b"no picture")
    rows = to_table(datasets, images / "train", "Image").to_list()
    rows[4]["media"] = None
    features = datasets.Features({"label": datasets.Value("int64"), "media": datasets.Image(decode=False)})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    recipe = load_recipe({}, IMAGE)
    files = Signals(tmp_path / "saved", create_tokenizer(recipe).spec, recipe.data)
    error = capfd.readouterr().err
    assert files.damaged == {2, 4}
    assert f"skipped {tmp_path}/saved row 2: 2.png" in error
    assert "row 4: holds no image" in error
    assert "2 of 6 files skipped" in error


@pytest.fixture(params=["folder", "shards", "table"])
def source(request, images, tmp_path) -> Path:
    """The pictures of `images / "train"`."""
    if request.param == "folder":
        return images / "train"
    if request.param == "shards":
        to_shards(images / "train", f"{tmp_path}/shards/{{}}.tar")
        return tmp_path / "shards"
    to_table(request.getfixturevalue("datasets"), images / "train", "Image").save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def batches_of(data, step=0, rank=0, world_size=1, **changes) -> list[torch.Tensor]:
    recipe = load_recipe({}, {**IMAGE, "data.cache_gib": 0.0, **changes})
    crops = Crops(Signals(data, create_tokenizer(recipe).spec, recipe.data), recipe.data, recipe.seed)
    return list(training_batches(crops, recipe, step, rank, world_size))


def test_every_source_gives_the_same_batches_to_any_number_of_processes(source, images):
    whole = batches_of(images / "train", batch_size=4)
    assert torch.equal(torch.stack(batches_of(source, batch_size=4, **{"data.workers": 2})), torch.stack(whole))
    ranks = [batches_of(source, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(torch.stack([torch.cat(parts) for parts in zip(*ranks, strict=True)]), torch.stack(whole))


def test_every_source_goes_on_at_any_step(source):
    whole, rest = batches_of(source), batches_of(source, step=4)
    assert torch.equal(torch.stack(rest), torch.stack(whole[4:]))


def test_a_data_set_with_splits_is_trained_and_validated(datasets, speech, tmp_path):
    splits = {"train": "train", "validation": "val"}
    rows = {split: to_table(datasets, speech / part, "Audio") for split, part in splits.items()}
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "saved")
    for split, table in rows.items():
        table.to_parquet(tmp_path / "parquet" / "data" / f"{split}-00000-of-00001.parquet")
    values = {**AUDIO, "steps": 2}
    result = train({}, values, data=speech, run_dir=tmp_path / "files")
    for data in (tmp_path / "saved", f"hf://{tmp_path}/parquet"):
        found = train({}, values, data=data, run_dir=tmp_path / "run", resume=False)
        assert losses(tmp_path / "run") == losses(tmp_path / "files")
        assert found.metrics == result.metrics


def test_split_and_column_are_chosen_by_name(datasets, images, tmp_path):
    rows = to_table(datasets, images / "train", "Image")
    rows = rows.add_column("other", rows["media"]).cast_column("other", datasets.Image(decode=False))
    datasets.DatasetDict(train=rows, test=rows.select([4, 5])).save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "parquet" / "0.parquet")
    assert len(opened(IMAGE, f"hf://{tmp_path}/saved:test:media")) == 2
    assert len(opened(IMAGE, f"hf://{tmp_path}/parquet:train[:50%]:media")) == 3
    for data, message in (
        ("saved:test", "2 of the columns label, media, other are of image"),
        ("saved:none:media", "expected a split among train, test, got 'none'"),
        ("parquet:none:media", "cannot be loaded"),
        ("saved:test:image", "expected a column among label, media, other, got 'image'"),
        ("saved:test:label", "column 'label' holds no image"),
    ):
        with pytest.raises(InputError, match=message):
            opened(IMAGE, f"hf://{tmp_path}/{data}")
    with pytest.raises(InputError, match="tables hold image, audio, video"):
        opened(STRUCTURE, f"hf://{tmp_path}/saved:test")


def test_a_table_without_its_package_names_the_extra(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"tokenizer-zoo\[scale\]"):
        train({}, IMAGE, data="hf://owner/name", run_dir=tmp_path / "run")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sound_in_memory_is_read_as_from_its_file(suffix, tmp_path):
    path = tmp_path / f"noise{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (20000, 2)), 16000)
    (ours, rate), (theirs, expected_rate) = read_audio(MediaBytes(path.read_bytes(), "noise")), read_audio(path)
    assert rate == expected_rate
    assert torch.equal(ours, theirs)
    with pytest.raises(MediaError, match="table row 5"):
        read_audio(MediaBytes(b"no sound", "table row 5"))


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".bcif"])
def test_a_structure_in_memory_is_read_as_from_its_file(suffix, tmp_path):
    path = tmp_path / f"chain{suffix}"
    write_structure(path, helix(12))
    ours = read_structure(MediaBytes(path.read_bytes(), f"shard: chain{suffix}"))
    assert torch.equal(ours.coordinates, read_structure(path).coordinates)
    with pytest.raises(MediaError, match=rf"shard: chain\{suffix}: (cannot be read|holds no atom)"):
        read_structure(MediaBytes(b"\xff\xfe no atom", f"shard: chain{suffix}"))


@pytest.fixture
def sounds(tmp_path) -> Path:
    """Eight sounds of 0.1, 0.2, ... 0.8 seconds at 24 kHz."""
    (tmp_path / "sounds").mkdir()
    random = np.random.default_rng(0)
    for tenths in range(1, 9):
        soundfile.write(tmp_path / "sounds" / f"{tenths}.wav", random.uniform(-0.5, 0.5, 2400 * tenths), 24000)
    return tmp_path / "sounds"


def lengths(sounds, **data) -> list[int]:
    recipe = load_recipe({}, {**AUDIO, "steps": 4, "data": data})
    crops = Crops(Signals(sounds, create_tokenizer(recipe).spec, recipe.data), recipe.data, seed=0)
    return [batch.shape[2] for batch in training_batches(crops, recipe, step=0)]


def test_a_batch_of_sounds_is_as_long_as_its_shortest(sounds):
    assert lengths(sounds, seconds=0.6, bucket=8, min_seconds=0.01) == [2400, 7200, 12000, 14400]


def test_of_sounds_shorter_than_the_least_there_is_as_much(sounds):
    assert lengths(sounds, seconds=0.6, bucket=8, min_seconds=0.4) == [9600, 9600, 12000, 14400]
    assert lengths(sounds, seconds=0.2, bucket=8, min_seconds=0.4) == [4800] * 4


def test_sounds_of_different_lengths_train_a_tokenizer(sounds, tmp_path):
    values = {**AUDIO, "data": {"seconds": 0.6, "bucket": 4}, "steps": 12}
    train({}, values, data=sounds, run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    assert logged[12]["loss"] < logged[1]["loss"]
    with pytest.raises(InputError, match=r"data\.bucket"):
        AudioData(bucket=0)


def test_training_and_validation_data_are_located(images, tmp_path):
    train, val = MediaFolder(images / "train"), MediaFolder(images / "val")
    assert training_and_validation(images) == (train, val)
    assert training_and_validation(images / "val", images / "train") == (val, train)
    to_shards(images / "val", f"{tmp_path}/shards/{{}}.tar")
    shards = Shards((tmp_path / "shards" / "0.tar",))
    assert training_and_validation(f"{tmp_path}/shards/{{0..0}}.tar") == (shards, None)
    with pytest.raises(MediaError, match="expected samples of audio in the shards, got none"):
        opened(AUDIO, tmp_path / "shards" / "0.tar")
