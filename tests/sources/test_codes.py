"""Code files as a source."""

import pytest
import torch

from tests.support.sources import items_of, write_files
from zoo.codes import CodeFile, save_codes
from zoo.errors import InputError
from zoo.sources import open_source


@pytest.fixture
def codes(tmp_path):
    (tmp_path / "codes" / "a").mkdir(parents=True)
    for number, name in enumerate(("a/1.npz", "2.safetensors")):
        save_codes(tmp_path / "codes" / name, torch.full((1, 2, 5), number), name="some", codebook_sizes=(4, 4))
    return tmp_path / "codes"


def test_code_files_are_items_whose_content_is_codes(codes):
    items = items_of(open_source(codes, "audio"))
    assert [item.key for item in items] == ["2.safetensors", "a/1.npz"]
    for item, number in zip(items, (1, 0), strict=True):
        assert isinstance(item.content, CodeFile) and item.content.name == "some"
        assert torch.equal(item.content.codes, torch.full((1, 2, 5), number))
    assert [item.key for item in items_of(open_source(codes / "a" / "1.npz", "audio"))] == ["1.npz"]


def test_a_damaged_code_file_is_an_item_with_a_problem(codes):
    write_files(codes, "3.npz")
    (codes / "4.npz").touch()
    problems = {item.key: item.problem for item in items_of(open_source(codes, "audio"))}
    assert "3.npz: not a code file, or a damaged one" in problems["3.npz"]
    assert "4.npz: holds no bytes" in problems["4.npz"]
    assert problems["a/1.npz"] is None


def test_code_files_are_read_from_this_machine():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/codes/1.npz", b"1")
    for url in ("memory://codes", "memory://codes/1.npz"):
        with pytest.raises(InputError, match="expected code files on this machine, got a URL"):
            open_source(url, "audio")
