"""Files in folders, on the disk and behind fsspec."""

import os
import tracemalloc

import pytest

from tests.support.sources import contents, items_of, to_memory, write_files
from zoo.errors import InputError, MediaError
from zoo.sources import open_source

NAMES = ("a b/1.png", "a b/100%25.PNG", "a/1.png", "a/ü 木.jpg", "b.webp")


@pytest.fixture
def folder(tmp_path):
    return write_files(tmp_path / "photos", *NAMES, "a/note.txt", ".hidden/1.png", "a/.2.png", "sound.wav")


def test_items_are_the_files_of_the_modality_in_the_order_of_their_paths(folder):
    items = items_of(open_source(folder, "image"))
    assert [item.key for item in items] == ["a/1.png", "a/ü 木.jpg", "a b/1.png", "a b/100%25.PNG", "b.webp"]
    assert [item.content for item in items] == [folder / item.key for item in items]
    assert {(item.source, item.modality, item.problem) for item in items} == {(str(folder), "image", None)}


def test_a_folder_behind_fsspec_holds_what_it_holds_on_the_disk(folder):
    remote = to_memory(folder)
    ours, theirs = open_source(remote, "image", items_per_shard=2), open_source(folder, "image", items_per_shard=2)
    assert list(contents(ours).items()) == list(contents(theirs).items())
    assert [len(list(shard.items())) for shard in ours] == [len(list(shard.items())) for shard in theirs] == [2, 2, 1]
    item = next(iter(ours[0].items()))
    assert (item.source, str(item.content)) == (remote, f"{remote}/a/1.png")


def test_the_name_of_a_shard_changes_with_its_files_alone(folder):
    names = [shard.name for shard in open_source(folder, "image", items_per_shard=3)]
    assert names == [shard.name for shard in open_source(str(folder), "image", items_per_shard=3)]
    write_files(folder, "c.png")
    first, second = (shard.name for shard in open_source(folder, "image", items_per_shard=3))
    assert first == names[0] and second != names[1]


def test_a_file_that_is_named_twice_is_one_item(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    inputs = [folder, folder / "b.webp", link / "a", f"{tmp_path}/photos/../photos/a b", folder]
    assert len(contents(open_source(inputs, "image"))) == len(NAMES)


def test_files_of_one_name_in_several_folders_differ_in_their_sources(tmp_path):
    folders = [write_files(tmp_path / name, "1.png") for name in ("a", "b")]
    (shard,) = open_source(folders, "image")
    assert [(item.source, item.key) for item in shard.items()] == [(str(folder), "1.png") for folder in folders]


def test_a_file_by_itself_is_the_item_that_it_is_in_its_folder(tmp_path):
    folder = write_files(tmp_path / "a", "1.png")
    assert items_of(open_source(folder / "1.png", "image")) == items_of(open_source(folder, "image"))


def test_a_linked_folder_is_followed_once_and_a_linked_file_is_a_file(tmp_path):
    folder = write_files(tmp_path / "photos", "a/1.png")
    (folder / "again").symlink_to(folder / "a")
    (folder / "up").symlink_to(folder)
    (folder / "2.png").symlink_to(folder / "a" / "1.png")
    assert list(contents(open_source(folder, "image"))) == ["2.png", "a/1.png"]


def test_a_name_that_is_no_utf_8_is_a_key_that_is(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(b"a")
    except OSError:
        pytest.skip("this file system has no such names")
    assert contents(open_source(tmp_path, "image")) == {"a\\xff.png": b"a"}


@pytest.mark.parametrize("is_remote", [False, True])
def test_files_that_are_empty_or_gone_have_a_problem(is_remote, tmp_path):
    folder = write_files(tmp_path / "photos", "1.png", "3.png")
    (folder / "2.png").touch()
    shards = open_source(to_memory(folder) if is_remote else folder, "image")
    if is_remote:
        import fsspec

        fsspec.filesystem("memory").rm("/photos/3.png")
    (folder / "3.png").unlink()
    first, second, third = items_of(shards)
    assert first.problem is None
    assert "2.png: holds no bytes" in second.problem
    assert "3.png: " in third.problem and "o such file" in third.problem.lower()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_folder_without_files_of_the_modality_is_an_error(is_remote, folder):
    with pytest.raises(MediaError, match=r"photos: holds no file ending in .*\.pdb"):
        open_source(to_memory(folder) if is_remote else folder, "structure")


def test_no_input_another_modality_and_shards_of_no_item_are_errors(folder):
    for arguments, message in (
        (([], "image"), "several paths, got none"),
        ((folder, "images"), "expected a modality among"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(*arguments)
    with pytest.raises(InputError, match="expected items_per_shard of at least 1, got 0"):
        open_source(folder, "image", items_per_shard=0)


def test_one_remote_file_is_in_memory_at_a_time(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(bytes(2**21))
    (shard,) = open_source(to_memory(tmp_path), "image")
    tracemalloc.start()
    for item in shard.items():
        assert len(item.content.content) == 2**21
        del item
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 2**21


@pytest.mark.parametrize("count, size", [(20, 16), (1290, 21)])
def test_a_folder_is_cut_into_64_shards_unless_they_would_be_too_small(count, size, tmp_path):
    write_files(tmp_path, *(f"{number}.png" for number in range(count)))
    shards = open_source(tmp_path, "image")
    assert len(list(shards[0].items())) == size and len(shards) == -(-count // size)
