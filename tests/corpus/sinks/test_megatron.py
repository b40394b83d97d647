"""Megatron-LM's indexed data set, read by its specification and nothing of zoo's."""

import json
import mmap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.corpora import LAYOUTS, SHARD, facts, rows
from zoo.codes import Pattern, flatten
from zoo.corpus import sinks
from zoo.corpus.rows import Facts, Row
from zoo.errors import InputError

DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


def documents(prefix: str | Path) -> list[np.ndarray]:
    """The documents of `prefix.idx` and `prefix.bin`.

    The index: nine bytes of magic, a version, the code of the type of an id (one byte), the number S of sequences, the
    number D of document bounds; lengths in ids, int32 [S]; byte offsets, int64 [S]; and the first sequence of each
    document with, last, the number of sequences, int64 [D]. All little-endian; version, S and D have 8 bytes.
    """
    with open(f"{prefix}.idx", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as index:
        assert index[:9] == b"MMIDIDX\x00\x00"
        assert int.from_bytes(index[9:17], "little") == 1
        dtype = np.dtype(DTYPES[index[17]])
        count, bounds = np.frombuffer(index[18:34], "<u8").tolist()
        body = index[34:]
        assert len(body) == count * 12 + bounds * 8
        lengths = np.frombuffer(body[: 4 * count], "<i4")
        offsets = np.frombuffer(body[4 * count : 12 * count], "<i8")
        firsts = np.frombuffer(body[12 * count :], "<i8")
    assert firsts[0] == 0 and firsts[-1] == count
    ids = np.memmap(f"{prefix}.bin", dtype, "r")
    assert ids.nbytes == offsets[-1] + lengths[-1] * dtype.itemsize
    starts = offsets // dtype.itemsize
    sequences = [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return [np.concatenate(sequences[first:end]) for first, end in pairwise(firsts)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_document_is_the_flattened_ids_of_an_item(layout, tmp_path):
    sizes = facts(layout).codebook_sizes
    sinks.create("megatron", tmp_path, facts(layout)).write(SHARD, rows(layout))
    for found, row in zip(documents(tmp_path / SHARD), rows(layout), strict=True):
        assert found.tolist() == flatten(row.codes[None], sizes)[0].tolist()


@pytest.mark.parametrize("pattern", ["frame_first", "coarse_first", "parallel", "delay"])
@pytest.mark.parametrize(
    ("layout", "markers"),
    [("residual audio", ("begin", "end")), ("images", ["row", "end"]), ("video", ("begin", "end", "row", "frame"))],
)
def test_a_document_is_a_pattern_with_its_markers(pattern, layout, markers, tmp_path):
    about = facts(layout)
    sink = sinks.create("megatron", tmp_path, about, pattern=pattern, markers=markers, offset=1000)
    sink.write(SHARD, rows(layout))
    ids = Pattern(about.codebook_sizes, pattern, tuple(markers), 1000)
    for found, back, row in zip(documents(tmp_path / SHARD), sinks.read(tmp_path), rows(layout), strict=True):
        wanted = ids.ids(row.codes[None])[0]
        if pattern in ("parallel", "delay"):
            found = found.reshape(-1, len(about.codebook_sizes)).T
        assert found.tolist() == wanted.tolist()
        assert torch.equal(back.codes, row.codes)


def test_documents_end_in_the_id_after_those_of_the_codebooks(tmp_path):
    sinks.create("megatron", tmp_path, facts(), markers=("end",)).write(SHARD, rows())
    assert {document[-1] for document in documents(tmp_path / SHARD)} == {48}


@pytest.mark.parametrize(
    ("size", "offset", "markers", "dtype"),
    [
        (65499, 0, (), "uint16"),
        (65500, 0, (), "int32"),
        (65499, 0, ("end",), "int32"),
        (65000, 499, (), "uint16"),
        (65000, 500, (), "int32"),
        (2**31, 0, (), "int32"),
    ],
)
def test_ids_are_uint16_where_the_vocabulary_is_below_65500(size, offset, markers, dtype, tmp_path):
    about = Facts("sample", "0f", "audio", (size,), 24000, "MIT", {})
    sink = sinks.create("megatron", tmp_path, about, offset=offset, markers=markers)
    sink.write(SHARD, [Row("source", "a.wav", torch.tensor([[0, size - 1]]), (640,))])
    (document,) = documents(tmp_path / SHARD)
    assert document.dtype == dtype
    assert document[:2].tolist() == [offset, offset + size - 1]


def test_the_lines_beside_say_where_each_document_is_from(tmp_path):
    sinks.create("megatron", tmp_path, facts("video"), markers=("frame",)).write(SHARD, rows("video"))
    lines = [json.loads(line) for line in (tmp_path / f"{SHARD}.jsonl").read_text("utf-8").splitlines()]
    for fields, row in zip(lines, rows("video"), strict=True):
        assert fields["id"] == row.id == f"{fields['source']}:{fields['key']}"
        assert tuple(fields["size"]) == row.size
        assert tuple(fields["grid"]) == row.codes.shape[1:]
        assert (fields["frame_rate"], fields["pixel_aspect"]) == (row.frame_rate, row.pixel_aspect)
        assert (fields["order"], fields["markers"], fields["offset"]) == ("frame_first", ["frame"], 0)


def test_the_index_is_completed_last(tmp_path):
    files = sinks.create("megatron", tmp_path, facts()).write(SHARD, rows())
    assert files == (f"{SHARD}.jsonl", f"{SHARD}.bin", f"{SHARD}.idx")
    times = [(tmp_path / file).stat().st_ctime_ns for file in files]
    assert times == sorted(times)


def test_data_path_has_a_weight_and_a_prefix_for_each_shard(tmp_path):
    sink = sinks.create("megatron", tmp_path, facts())
    sink.finish([sink.write("0", rows(count=5)), sink.write("1", ()), sink.write("2.b", rows(count=2))])
    words = (tmp_path / "data_path.txt").read_text().split()  # as Megatron-LM splits them
    weights, prefixes = words[::2], words[1::2]
    assert len(prefixes) == 2
    for weight, prefix in zip(weights, prefixes, strict=True):
        assert Path(prefix).is_absolute()
        assert float(weight) == sum(map(len, documents(prefix)))


def test_a_folder_with_white_space_is_an_error(tmp_path):
    with pytest.raises(InputError, match="takes no folder whose path has white space"):
        sinks.create("megatron", tmp_path / "my tokens", facts())


def test_a_marker_that_the_grid_has_no_place_for_is_an_error(tmp_path):
    with pytest.raises(InputError, match="expected a grid of at least 3 axes for the marker frame"):
        sinks.create("megatron", tmp_path, facts(), markers=("frame",)).write(SHARD, rows())
