"""WebDataset's shards as the package webdataset reads them."""

import tarfile
from dataclasses import replace

import pytest
import torch
from webdataset import WebDataset

from tests.support.corpora import LAYOUTS, SHARD, facts, rows
from zoo.corpus import sinks
from zoo.corpus.rows import Row
from zoo.errors import MediaError
from zoo.modalities import MediaBytes

CODES = torch.zeros(3, 2, dtype=torch.int64)


def samples(folder) -> list[dict]:
    return list(WebDataset(f"file:{folder}/{SHARD}.tar", shardshuffle=False, empty_check=False).decode())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_webdataset_reads_it(layout, tmp_path):
    about = facts(layout)
    sinks.create("webdataset", tmp_path, about).write(SHARD, rows(layout))
    for sample, row in zip(samples(tmp_path), rows(layout), strict=True):
        assert torch.equal(torch.from_numpy(sample["codes.npy"].astype("int64")), row.codes)
        fields = sample["json"]
        assert (fields["id"], tuple(fields["size"])) == (row.id, row.size)
        assert tuple(fields["grid"]) == row.codes.shape[1:]
        assert (fields["frame_rate"], fields["pixel_aspect"]) == (row.frame_rate, row.pixel_aspect)
        assert (fields["sample_rate"], fields["tokenizer"]) == (about.sample_rate, about.tokenizer)
        assert fields["weights"] == about.weights


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["a.flac", "b.FLAC"], ["a", "b"]),
        (["a.wav", "a.flac", "a.mp3"], ["a", "a-2", "a-3"]),
        (["a-2.wav", "a.wav", "a.flac"], ["a-2", "a", "a-3"]),
        (["A.wav", "a.wav"], ["A", "a-2"]),
        (["clip 1.5", "clip 1.6"], ["clip 1_5", "clip 1_6"]),
        (["v1.2/sub folder/é è.v3.flac"], ["v1_2/sub folder/é è_v3"]),
        (["x/a.wav", "y/a.wav"], ["x/a", "y/a"]),
        (["/etc/a.wav", "../../a.wav", ".hidden.wav"], ["etc/a", "__/__/a"[1:], "_hidden"]),
        (["__meta__/a.wav", "__init__.wav"], ["_meta__/a", "_init__"]),
        (["", ".wav", "/"], ["_", "_-2", "_-3"]),
        (['a:b*"c.wav', "a\\b.wav", "a\nb.wav"], ["a_b__c", "a_b", "a_b-2"]),
        (["é" * 200 + ".wav"], ["é" * 75]),
    ],
)
def test_names_are_safe_and_differ(keys, names, tmp_path):
    given = [Row("source", key, CODES, (640,)) for key in keys]
    sinks.create("webdataset", tmp_path, facts()).write(SHARD, given)
    found = samples(tmp_path)
    assert [sample["__key__"] for sample in found] == names
    assert [sample["json"]["key"] for sample in found] == keys
    assert [sample["json"]["id"] for sample in found] == [row.id for row in given]


def test_items_of_one_key_in_two_sources_stay_apart(tmp_path):
    given = [Row(source, "a.wav", CODES, (640,)) for source in ("x", "y")]
    sinks.create("webdataset", tmp_path, facts()).write(SHARD, given)
    assert [sample["json"]["id"] for sample in samples(tmp_path)] == ["x:a.wav", "y:a.wav"]


def test_members_have_nothing_of_the_machine_or_the_hour(tmp_path):
    sinks.create("webdataset", tmp_path, facts()).write(SHARD, rows())
    with tarfile.open(tmp_path / f"{SHARD}.tar") as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert (member.mode, member.isreg()) == (0o644, True)


@pytest.mark.parametrize("name", ["sound.flac", "SOUND.FLAC", "no suffix"])
def test_media_lie_beside_unchanged(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 10)
    member = "flac" if "." in name else "bin"
    for media in (path, MediaBytes(path.read_bytes(), f"member {name}")):
        sinks.create("webdataset", tmp_path, facts(), media=True).write(SHARD, rows(media=media))
        found = list(WebDataset(f"file:{tmp_path}/{SHARD}.tar", shardshuffle=False, empty_check=False))
        assert len(found) == 5
        assert all(sample[member] == path.read_bytes() for sample in found)
        assert [row.id for row in sinks.read(tmp_path)] == [row.id for row in rows()]


def test_a_format_of_two_suffixes_keeps_both(tmp_path):
    given = [replace(row, key="1abc.cif.gz", media=MediaBytes(b"x", "1abc.cif.gz")) for row in rows("structures", 1)]
    sinks.create("webdataset", tmp_path, facts("structures"), media=True).write(SHARD, given)
    with tarfile.open(tmp_path / f"{SHARD}.tar") as archive:
        assert archive.getnames() == ["1abc.cif.gz", "1abc.codes.npy", "1abc.json"]


def test_media_are_left_out_unless_asked_for(tmp_path):
    sinks.create("webdataset", tmp_path, facts()).write(SHARD, rows(media=tmp_path / "not there.flac"))
    assert all("flac" not in sample for sample in samples(tmp_path))


def test_media_that_are_gone_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.flac: cannot be read: No such file"):
        sinks.create("webdataset", tmp_path, facts(), media=True).write(SHARD, rows(media=tmp_path / "gone.flac"))
    assert not list(tmp_path.iterdir())


def test_an_item_without_a_file_has_no_media(tmp_path):
    sinks.create("webdataset", tmp_path, facts(), media=True).write(SHARD, rows(media=None))
    assert len(samples(tmp_path)) == 5
