"""Codes as ids, as packed bits and as files, each back to what went in."""

import dataclasses
import math
import pickle
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import zoo
from zoo.codes import CodeFile, flatten, load_codes, pack, packed_size, save_codes, unflatten, unpack, vocabulary_size
from zoo.errors import InputError, MediaError
from zoo.files import atomic_path

GRIDS = [(1,), (37,), (5, 3), (2, 3, 4)]
POWERS = [(1024,), (2,), (1,), (2, 1, 8), (4096, 64), (2**18,) * 3, (2**40, 4)]
MIXED = [(1000,), (64000,), (3,), (5, 7, 1000), (1, 6), (8, 5), (2**40 + 1, 2)]


def random_codes(sizes: tuple[int, ...], grid: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    """Uniform, with the least and the greatest code of every codebook among them."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(size, (batch, *grid), generator=generator) for size in sizes], dim=1)
    codes[0].flatten(1)[:, 0] = torch.tensor(sizes) - 1
    codes[-1].flatten(1)[:, -1] = 0
    return codes


@contextmanager
def no_file_may_exceed(num_bytes: int):
    """What a full disk does: writing past the limit fails with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Language-model ids


def test_each_codebook_has_ids_of_its_own():
    codes = torch.tensor([[[0, 1], [2, 3]], [[9, 8], [7, 6]]])  # two items, two codebooks, two frames
    assert flatten(codes, (10, 10)).tolist() == [[0, 12, 1, 13], [9, 17, 8, 16]]
    assert flatten(codes, (10, 10), offset=100).tolist() == [[100, 112, 101, 113], [109, 117, 108, 116]]
    assert vocabulary_size((10, 10)) == 20


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sizes", POWERS + MIXED)
def test_ids_give_the_codes_back(sizes, grid):
    codes = random_codes(sizes, grid)
    ids = flatten(codes, sizes, offset=7)
    assert ids.shape == (2, len(sizes) * math.prod(grid))
    assert torch.equal(unflatten(ids, sizes, grid, offset=7), codes)


def test_narrow_integers_do_not_overflow_into_other_ids():
    codes = torch.full((1, 2, 3), 200, dtype=torch.uint8)
    ids = flatten(codes, (256, 256), offset=1000)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[1200, 1456] * 3]


def test_an_id_of_another_codebook_is_named():
    ids = torch.tensor([[100, 112, 101, 109]])
    message = r"expected ids of codebook 1 in \[110, 120\), got 109 at item 0, place 3"
    with pytest.raises(InputError, match=message):
        unflatten(ids, (10, 10), (2,), offset=100)


def test_ids_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(InputError, match=r"expected ids as \[batch, 6\] .* got \[1, 4\]"):
        unflatten(torch.zeros(1, 4, dtype=torch.int64), (10, 10), (3,))


# Packed bits


def test_powers_of_two_are_bit_fields_from_the_highest_bit():
    assert pack(torch.tensor([[[1, 2, 3]]]), (8,)) == bytes([0b00101001, 0b10000000])
    assert pack(torch.tensor([[[1, 0], [5, 3]]]), (2, 8)) == bytes([0b11010011])


def test_other_sizes_are_the_digits_of_one_integer():
    assert pack(torch.tensor([[[2, 0, 1]]]), (3,)) == bytes([2 * 9 + 0 * 3 + 1])
    assert pack(torch.tensor([[[2, 1], [4, 0]]]), (3, 5)) == bytes([((2 * 5 + 4) * 3 + 1) * 5 + 0])


@pytest.mark.parametrize("sizes", [(3,), (1000,), (5, 7, 1000)])
def test_blocks_are_the_integers_that_the_docstring_defines(sizes):
    codes = random_codes(sizes, (5000,), batch=1)
    radix, positions = math.prod(sizes), 1
    while True:
        num_bytes = math.ceil((radix**positions - 1).bit_length() / 8)
        if radix**positions >= 2 ** (8 * num_bytes - num_bytes // 128):
            break
        positions += 1
    expected = b""
    for block in codes[0].split(positions, dim=1):
        value = 0
        for position in block.T.tolist():
            for code, size in zip(position, sizes, strict=True):
                value = value * size + code
        expected += value.to_bytes(math.ceil((radix ** block.shape[1] - 1).bit_length() / 8), "big")
    assert pack(codes, sizes) == expected


@pytest.mark.parametrize("grid", [*GRIDS, (3001,)])
@pytest.mark.parametrize("sizes", POWERS + MIXED)
def test_packed_bytes_give_the_codes_back(sizes, grid):
    codes = random_codes(sizes, grid)
    data = pack(codes, sizes)
    assert len(data) == packed_size(sizes, codes.shape)
    assert torch.equal(unpack(data, sizes, codes.shape), codes)


@pytest.mark.parametrize("sizes", POWERS)
def test_powers_of_two_take_their_bits_and_no_more(sizes):
    bits = sum(int(math.log2(size)) for size in sizes)
    for grid in GRIDS:
        assert packed_size(sizes, (3, len(sizes), *grid)) == math.ceil(3 * math.prod(grid) * bits / 8)


@pytest.mark.parametrize("sizes", [*MIXED, (1388,), (999_983,), (255, 257)])
def test_other_sizes_take_less_than_a_thousandth_more_than_their_information(sizes):
    information = 100_000 * sum(math.log2(size) for size in sizes) / 8
    assert information <= packed_size(sizes, (1, len(sizes), 100_000)) < 1.001 * information
    few = 5 * sum(math.log2(size) for size in sizes) / 8
    assert packed_size(sizes, (1, len(sizes), 5)) == math.ceil(few)


def test_spans_and_groups_of_blocks_join_without_a_seam():
    for sizes in [(4, 8), (5, 8)]:
        codes = random_codes(sizes, (300_001,), batch=1)
        assert torch.equal(unpack(pack(codes, sizes), sizes, codes.shape), codes)


def test_a_wrong_number_of_bytes_is_refused():
    data = pack(torch.zeros(1, 1, 10, dtype=torch.int64), (1024,))
    with pytest.raises(InputError, match=r"expected 13 bytes for codes \[1, 1, 10\].* got 12"):
        unpack(data[:-1], (1024,), (1, 1, 10))


def test_bytes_that_no_codes_give_are_refused():
    with pytest.raises(InputError, match="expected zero bits"):
        unpack(b"\x00\x01", (8,), (1, 1, 5))
    with pytest.raises(InputError, match="expected blocks below their radix"):
        unpack(b"\x1b", (3,), (1, 1, 3))  # 27 = 3 ** 3


# What every function checks


@pytest.mark.parametrize("function", [flatten, pack])
def test_bad_codes_are_refused_with_what_came(function):
    codes = torch.zeros(1, 2, 4, dtype=torch.int64)
    cases = [
        (codes.float(), "expected codes as an integer tensor, got torch.float32"),
        (codes.bool(), "got torch.bool"),
        (codes.numpy(), "got ndarray"),
        (codes[0], r"expected codes as \[batch, 2, \*grid\], got \[2, 4\]"),
        (codes[:, :1], r"got \[1, 1, 4\]"),
        (codes[..., :0], r"got \[1, 2, 0\]"),
        (codes - 1, r"expected codes of codebook 0 in \[0, 10\), got -1 to -1"),
        (codes + torch.tensor([[0], [20]]), r"expected codes of codebook 1 in \[0, 20\), got 20 to 20"),
    ]
    for bad, message in cases:
        with pytest.raises(InputError, match=message):
            function(bad, (10, 20))


@pytest.mark.parametrize("sizes", [(), (0,), (-3, 4), (2.5,), (2**63,)])
def test_bad_codebook_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="expected codebook_sizes as integers"):
        vocabulary_size(sizes)


# Files


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    return tmp_path / f"codes{request.param}"


@pytest.mark.parametrize("sizes", [(256,), (257,), (1000, 65536), (2**18,), (2**40, 2)])
def test_a_file_gives_everything_back(path, sizes):
    codes = random_codes(sizes, (7,))
    lengths = torch.tensor([2100, 4])
    save_codes(path, codes, name="sample-75", codebook_sizes=sizes, size=(2100,), lengths=lengths)
    loaded = load_codes(path)
    assert torch.equal(loaded.codes, codes)
    assert loaded.codes.dtype == torch.int64
    assert torch.equal(loaded.lengths, lengths)
    assert (loaded.name, loaded.codebook_sizes, loaded.size) == ("sample-75", sizes, (2100,))


def test_size_and_lengths_need_not_be_stated(path):
    save_codes(path, random_codes((16,), (4, 4)), name="sample", codebook_sizes=(16,))
    loaded = load_codes(path)
    assert loaded.size is None
    assert loaded.lengths is None


def test_a_file_takes_the_narrowest_integers(path):
    save_codes(path, random_codes((256,), (10_000,)), name="sample", codebook_sizes=(256,))
    assert 20_000 < path.stat().st_size < 22_000


def test_other_variants_are_refused_by_both_names():
    spec = zoo.info("wavtokenizer-nano").spec
    file = CodeFile(torch.zeros(1, 1, 1, dtype=torch.int64), "sample-40", spec.codebook_sizes)
    file.check(dataclasses.replace(spec, name="sample-40"))
    with pytest.raises(InputError, match="expected codes of 'wavtokenizer-nano', got codes of 'sample-40'"):
        file.check(spec)


def test_what_does_not_fit_the_codes_is_refused_and_nothing_written(path):
    codes = random_codes((16,), (4, 4))
    for bad, message in [
        ({"size": (64,)}, "expected size as positive integers, at least 2"),
        ({"size": (64, 0)}, "expected size as positive integers, at least 2"),
        ({"lengths": torch.tensor([4])}, "expected lengths as 2 positive integers"),
        ({"lengths": torch.tensor([4.0, 4.0])}, "expected lengths as 2 positive integers"),
        ({"codebook_sizes": (8,)}, "expected codes of codebook 0"),
    ]:
        with pytest.raises(InputError, match=message):
            save_codes(path, codes, **{"name": "sample", "codebook_sizes": (16,), **bad})
    assert list(path.parent.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a code file ending in \.npz or \.safetensors"):
        save_codes(tmp_path / "codes.pt", random_codes((16,), (4,)), name="sample", codebook_sizes=(16,))
    with pytest.raises(InputError, match=r"expected a code file ending in \.npz or \.safetensors"):
        load_codes(tmp_path / "codes.pt")


def test_an_existing_file_is_replaced_only_on_request(path):
    first, second = random_codes((16,), (4,)), random_codes((16,), (5,))
    save_codes(path, first, name="sample", codebook_sizes=(16,))
    with pytest.raises(MediaError, match=f"{path.name}: exists already"):
        save_codes(path, second, name="sample", codebook_sizes=(16,))
    assert torch.equal(load_codes(path).codes, first)
    save_codes(path, second, name="sample", codebook_sizes=(16,), overwrite=True)
    assert torch.equal(load_codes(path).codes, second)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    codes = random_codes((16,), (4,))
    save_codes(path, codes, name="sample", codebook_sizes=(16,))
    with no_file_may_exceed(8192), pytest.raises(MediaError, match=f"{path.name}: cannot be written"):
        save_codes(path, random_codes((16,), (100_000,)), name="sample", codebook_sizes=(16,), overwrite=True)
    assert torch.equal(load_codes(path).codes, codes)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_folder_is_named(path):
    missing = path.parent / "missing" / path.name
    with pytest.raises(MediaError, match=f"missing/{path.name}: cannot be written: No such file or directory"):
        save_codes(missing, random_codes((16,), (4,)), name="sample", codebook_sizes=(16,))


def test_a_file_cut_anywhere_is_damaged(path):
    save_codes(path, random_codes((16,), (4,)), name="sample", codebook_sizes=(16,))
    whole = path.read_bytes()
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with pytest.raises(MediaError, match=f"{path.name}: not a code file, or a damaged one"):
            load_codes(path)


def test_files_of_something_else_are_refused(path):
    save_codes(path, random_codes((16,), (4,)), name="sample", codebook_sizes=(16,))
    for foreign in [b"RIFF....WAVE", pickle.dumps({"codes": [1]}), bytes(range(256)) * 10]:
        path.write_bytes(foreign)
        with pytest.raises(MediaError, match=f"{path.name}: not a code file"):
            load_codes(path)


def test_an_archive_of_other_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(MediaError, match="it has no entry 'zoo_codes' or 'codes'"):
        load_codes(tmp_path / "other.npz")


def test_objects_are_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    np.savez(tmp_path / "bomb.npz", zoo_codes=np.array(Bomb(), object), codes=np.zeros((1, 1, 1), np.int64))
    with pytest.raises(MediaError, match=r"bomb\.npz: not a code file"):
        load_codes(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_codes_beyond_the_stated_codebook_are_damaged(tmp_path):
    path = tmp_path / "codes.npz"
    save_codes(path, random_codes((16,), (4,)), name="sample", codebook_sizes=(16,))
    with np.load(path) as file:
        header = str(file["zoo_codes"]).replace("16", "8")
        np.savez(path, zoo_codes=np.array(header), codes=file["codes"])
    with pytest.raises(MediaError, match="expected codes of codebook 0"):
        load_codes(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(MediaError, match=f"{path.name}: cannot be read"):
        load_codes(path)


# Writing whole or not at all


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "out.txt") as temporary:
        temporary.write_text("half")
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "out.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "out.txt").mkdir()
    message = r"out\.txt: cannot be written: Is a directory"
    with pytest.raises(MediaError, match=message), atomic_path(tmp_path / "out.txt", overwrite=True) as temporary:
        temporary.write_text("whole")
