"""What a user's words for data mean."""

import sys
from pathlib import Path

import pytest

from tests.support.sources import contents, to_memory, write_files
from zoo.errors import InputError, MediaError, ZooError
from zoo.sources import open_source
from zoo.sources.locations import Codes, Manifest, MediaFolder, Shards, SingleFile, locate
from zoo.sources.places import RemotePath
from zoo.sources.tables import Table


def test_data_are_located_by_what_is_there(tmp_path):
    write_files(tmp_path, "photos/a/1.png", "shards/0.tar", "shards/1.tar", "table/data/0.parquet", "codes/a/1.npz")
    write_files(tmp_path, "list.txt", "list.jsonl", "1.parquet", "1.safetensors", "mixed/a/1.png", "mixed/features.npz")
    for name, kind in (
        ("photos", MediaFolder(tmp_path / "photos")),
        ("photos/a/1.png", SingleFile(tmp_path / "photos" / "a" / "1.png")),
        ("shards", Shards((tmp_path / "shards" / "0.tar", tmp_path / "shards" / "1.tar"))),
        ("shards/{1..0}.tar", Shards((tmp_path / "shards" / "1.tar", tmp_path / "shards" / "0.tar"))),
        ("shards/1.tar", Shards((tmp_path / "shards" / "1.tar",))),
        ("table", Table(f"{tmp_path}/table")),
        ("1.parquet", Table(f"{tmp_path}/1.parquet")),
        ("list.txt", Manifest(tmp_path / "list.txt")),
        ("list.jsonl", Manifest(tmp_path / "list.jsonl")),
        ("codes", Codes(tmp_path / "codes")),
        ("1.safetensors", Codes(tmp_path / "1.safetensors")),
        ("mixed", MediaFolder(tmp_path / "mixed")),  # arrays beside media are other files
    ):
        assert locate(f"{tmp_path}/{name}") == locate(f"file://{tmp_path}/{name}") == kind


def test_data_behind_fsspec_are_located_alike(tmp_path):
    write_files(tmp_path / "all", "photos/a/1.png", "shards/0.tar", "shards/1.tar", "table/data/0.parquet", "list.txt")
    url = to_memory(tmp_path / "all")
    assert locate(f"{url}/photos") == MediaFolder(RemotePath(f"{url}/photos"))
    assert locate(f"{url}/photos/a/1.png") == SingleFile(RemotePath(f"{url}/photos/a/1.png"))
    shards = Shards((RemotePath(f"{url}/shards/0.tar"), RemotePath(f"{url}/shards/1.tar")))
    assert locate(f"{url}/shards") == locate(f"{url}/shards/{{0..1}}.tar") == shards
    assert locate(f"{url}/table") == Table(f"{url}/table")
    assert locate(f"{url}/list.txt") == Manifest(RemotePath(f"{url}/list.txt"))


def test_a_table_is_named_with_its_split_and_column():
    assert locate("hf://owner/name/clean@v1:train[:9]:audio") == Table("owner/name/clean", "v1", "train[:9]", "audio")
    assert locate("hf://owner/name::image") == Table("owner/name", column="image")
    assert locate("hf://s3://bucket/0.parquet::image") == Table("s3://bucket/0.parquet", column="image")


def test_what_is_not_there_or_of_several_kinds_is_an_error(tmp_path):
    write_files(tmp_path, "mixed/0.tar", "mixed/0.png", "tables/0.tar", "tables/0.parquet", "a.zip")
    for data, message in (
        (tmp_path / "mixed", "expected one kind of data, got shards .* and media files"),
        (tmp_path / "tables", "expected one kind of data, got shards .* and tables"),
        (tmp_path / "none", "none: no such file or folder; expected a folder, a media file"),
        (tmp_path / "a.zip", "got a file ending in '.zip'"),
        (f"{tmp_path}/mixed/{{0..1}}.tar", "1.tar: no such file"),
        (f"{tmp_path}/{{0..999999}}.tar", "expected at most 100000 shards"),
        ("hf://a:b:c:d", "expected hf://owner/name"),
        ("memory://none", "memory://none: no such file or folder"),
        ("memory://{0..9}.tar", "memory://0.tar: no such file"),
        ("unheard://of/it", "unheard://of/it: cannot be read: Protocol not known"),
        ("memory://a::memory://b", "expected data as a path or as one URL"),
        ("", "expected data as a path"),
        (3, "expected data as a path"),
    ):
        with pytest.raises(InputError, match=message):
            locate(data)


def test_a_protocol_without_its_package_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://bucket/0.tar: cannot be read without a package: Install s3fs"):
        locate("s3://bucket/0.tar")


def test_a_store_that_refuses_is_an_error_with_its_reason(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(self, path, **options):
        raise PermissionError("not yours")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(MediaError, match="memory://photos: not permitted: not yours"):
        locate("memory://photos")


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("zoo.sources.") and name != "zoo.sources.items"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(ZooError, match=r"reading data needs webdataset.*tokenizer-zoo\[scale\]"):
        open_source(tmp_path, "image")


def test_several_inputs_may_be_of_several_kinds(tmp_path):
    write_files(tmp_path, "photos/1.png", "2.png", "list.txt")
    Path(tmp_path, "list.txt").write_text("photos/1.png\n")
    shards = open_source([tmp_path / "photos", tmp_path / "list.txt", tmp_path / "2.png"], "image")
    assert [[(item.source, item.key) for item in shard.items()] for shard in shards] == [
        [(str(tmp_path / "photos"), "1.png")],
        [(str(tmp_path / "list.txt"), "photos/1.png")],
        [(str(tmp_path), "2.png")],
    ]
    assert list(contents(shards[:1])) == ["1.png"]
