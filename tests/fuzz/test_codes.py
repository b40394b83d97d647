"""Codes come back from ids, bytes and files, whatever their sizes, grid and values."""

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import codes as zoo_codes
from zoo.codes import load_codes, save_codes

SAME_EVERY_TIME = settings(derandomize=True, database=None, deadline=None, max_examples=40)

SIZES = st.lists(
    st.one_of(st.integers(1, 20), st.sampled_from([1024, 4096, 64_000, 2**31, 2**40])), min_size=1, max_size=4
)


@st.composite
def coded(draw):
    """Codes and the sizes of their codebooks."""
    sizes = draw(SIZES)
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    random = draw(st.randoms(use_true_random=False))
    generator = torch.Generator().manual_seed(random.randrange(2**32))
    return torch.stack([torch.randint(size, tuple(shape), generator=generator) for size in sizes], dim=1), sizes


@SAME_EVERY_TIME
@given(coded(), st.integers(0, 2**50))
def test_codes_come_back_from_ids(given_codes, offset):
    codes, sizes = given_codes
    ids = zoo_codes.flatten(codes, sizes, offset=offset)
    assert offset <= int(ids.min()) and int(ids.max()) < offset + zoo_codes.vocabulary_size(sizes)
    assert torch.equal(zoo_codes.unflatten(ids, sizes, codes.shape[2:], offset=offset), codes)


@SAME_EVERY_TIME
@given(coded())
def test_codes_come_back_from_bytes(given_codes):
    codes, sizes = given_codes
    data = zoo_codes.pack(codes, sizes)
    assert len(data) == zoo_codes.packed_size(sizes, codes.shape)
    assert torch.equal(zoo_codes.unpack(data, sizes, codes.shape), codes)


@SAME_EVERY_TIME
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.binary(max_size=200))
def test_bytes_are_those_of_codes_or_refused(sizes, data):
    shape = (1, len(sizes), 30)
    try:
        codes = zoo_codes.unpack(data, sizes, shape)
    except zoo.InputError:
        return
    assert zoo_codes.pack(codes, sizes) == data


@SAME_EVERY_TIME
@given(coded(), st.sampled_from([".npz", ".safetensors"]), st.text(min_size=1, max_size=40))
def test_codes_come_back_from_files(given_codes, suffix, name):
    codes, sizes = given_codes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"codes{suffix}"
        save_codes(path, codes, name=name, codebook_sizes=sizes)
        file = load_codes(path)
    assert torch.equal(file.codes, codes)
    assert (file.name, file.codebook_sizes) == (name, tuple(sizes))
