"""WebDataset shards, read from their beginning to their end."""

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from tests.support.sources import contents, items_of, to_memory
from zoo.modalities import MediaBytes
from zoo.sources import open_source


def write_shard(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path) -> Path:
    """Two shards of two samples each, with a label beside each image."""
    for shard in range(2):
        names = [f"a b/{shard}{sample}.{suffix}" for sample in range(2) for suffix in ("json", "jpg")]
        write_shard(tmp_path / "shards" / f"{shard}.tar", *((name, name.encode()) for name in names))
    return tmp_path / "shards"


def test_a_shard_is_a_tar_and_an_item_its_member(shards):
    opened = open_source(f"{shards}/{{0..1}}.tar", "image")
    assert [shard.name for shard in opened] == [f"{shards}/0.tar", f"{shards}/1.tar"]
    assert [(item.source, item.key) for item in items_of(opened)] == [
        (f"{shards}/{shard}.tar", f"a b/{shard}{sample}.jpg") for shard in range(2) for sample in range(2)
    ]
    assert items_of(opened)[0].content == MediaBytes(b"a b/00.jpg", f"{shards}/0.tar: a b/00.jpg")
    assert contents(open_source(shards, "image")) == contents(opened)


def test_shards_behind_fsspec_hold_what_they_hold_on_the_disk(shards):
    url = to_memory(shards)
    expected = contents(open_source(shards, "image"))
    assert contents(open_source(url, "image")) == contents(open_source(f"{url}/{{0..1}}.tar", "image")) == expected


def test_a_shard_behind_fsspec_that_is_not_there_is_an_item_with_a_problem(shards):
    items = items_of(open_source(f"{to_memory(shards)}/{{0..2}}.tar", "image"))
    assert [item.problem is None for item in items] == [True] * 4 + [False]
    assert "2.tar: cannot be read: " in items[-1].problem and "no such file" in items[-1].problem


def test_members_that_do_not_count_have_the_reason(tmp_path):
    shard = write_shard(tmp_path / "0.tar", ("a.left.png", b"a"), ("b.png", b""), ("c.png", b"c"), ("note.txt", b"n"))
    first, second, third = items_of(open_source(shard, "image"))
    assert first.key == "a.left.png" and "the key of a sample ends at the first dot" in first.problem
    assert second.key == "b.png" and second.problem == f"{shard}: b.png: holds no bytes"
    assert third.problem is None


def test_a_second_member_of_a_name_has_another_key(tmp_path):
    shard = write_shard(tmp_path / "0.tar", ("a.png", b"1"), ("b.png", b"2"), ("a.png", b"3"))
    assert contents(open_source(shard, "image")) == {"a.png": b"1", "b.png": b"2", "a.png#2": b"3"}


@pytest.mark.parametrize(
    "damage, keys",
    [
        (lambda content: content[: content.index(b"third") + 2], ["1.png", "2.png", "3.png", "after byte 3584"]),
        (
            lambda content: content.replace(b"3.png", b"\xff" * 5),
            ["1.png", "2.png", "after byte 2048"],
        ),
        (lambda content: b"no tar", ["after byte 0"]),
        (lambda content: b"", ["after byte 0"]),
    ],
    ids=["cut", "overwritten", "other", "empty"],
)
def test_a_damaged_shard_ends_with_an_item_that_has_the_problem(damage, keys, tmp_path):
    shard = write_shard(
        tmp_path / "0.tar", ("1.png", b"first"), ("2.png", b"second"), ("3.png", b"third" * 200), ("4.png", b"fourth")
    )
    shard.write_bytes(damage(shard.read_bytes()))
    items = items_of(open_source(shard, "image"))
    assert [item.key for item in items] == keys
    assert [item.key for item in items if item.problem is None] == [key for key in keys if key in ("1.png", "2.png")]
    assert "damaged: nothing can be read after byte" in items[-1].problem


def test_one_member_is_in_memory_at_a_time(tmp_path):
    shard = write_shard(tmp_path / "0.tar", *((f"{number}.png", bytes(2**21)) for number in range(6)))
    (opened,) = open_source(shard, "image")
    tracemalloc.start()
    for item in opened.items():
        assert len(item.content.content) == 2**21
        del item
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 2**21


def test_a_thousand_shards_are_opened_without_reading_them(tmp_path):
    write_shard(tmp_path / "shards" / "0000.tar", ("a.png", b"a"))
    for number in range(1, 1000):
        (tmp_path / "shards" / f"{number:04}.tar").touch()
    opened = open_source(f"{tmp_path}/shards/{{0000..0999}}.tar", "image")
    assert len(opened) == 1000
    assert [item.problem is None for item in items_of(opened[:2])] == [True, False]
