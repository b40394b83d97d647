"""Files that are read in any order, as trainers do."""

import pickle

import pytest

from tests.support.data import to_shards, to_table
from tests.support.sources import write_files
from zoo.errors import InputError
from zoo.sources.files import FolderFiles, open_files
from zoo.sources.locations import locate


@pytest.fixture
def folder(tmp_path):
    """Eight files, the larger the later."""
    folder = write_files(tmp_path / "files", *(f"{number}.png" for number in range(8)))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() * 100 * int(path.stem) or b"0")
    return folder


@pytest.fixture(params=["folder", "shards", "table"])
def source(request, folder, tmp_path):
    """The files of `folder`."""
    if request.param == "folder":
        return folder
    if request.param == "shards":
        to_shards(folder, f"{tmp_path}/shards/{{}}.tar")
        return tmp_path / "shards"
    to_table(request.getfixturevalue("datasets"), folder, "Image").save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("first", [1, 5])
def test_the_first_files_of_a_source_are_the_first_of_all(first, source):
    whole, part = (open_files(locate(source), ("image",), count) for count in (None, first))
    assert len(part) == first
    assert part.sizes.tolist() == whole.sizes[:first].tolist()


def test_a_spawned_process_is_not_sent_the_contents_of_a_table(datasets, folder, tmp_path):
    (folder / "7.png").write_bytes(bytes(100_000))
    to_table(datasets, folder, "Image").save_to_disk(tmp_path / "saved")
    source = open_files(locate(tmp_path / "saved"), ("image",))
    _, expected = source.open(7)
    sent = pickle.dumps(source)
    assert len(sent) < len(expected.content) / 2
    assert pickle.loads(sent).open(7) == ("image", expected)


def test_a_folder_is_a_source_of_paths(folder):
    assert FolderFiles(folder, ("image",)).open(3) == ("image", folder / "3.png")


def test_other_data_cannot_be_read_in_any_order(folder, tmp_path):
    (tmp_path / "list.txt").write_text("files/1.png")
    for data in (tmp_path / "list.txt", folder / "1.png"):
        with pytest.raises(InputError, match="expected a folder or shards on this machine, or a table"):
            open_files(locate(data), ("image",))
