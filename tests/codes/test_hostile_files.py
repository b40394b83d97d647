"""Code files that state what is not so: a clean error each, in memory that the file's size bounds."""

import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

import zoo
from zoo.codes import CodeFile, load_codes, save_codes
from zoo.errors import InputError, MediaError

FIELDS = {"format": "zoo-codes-1", "name": "sample", "codebook_sizes": [16], "size": [4]}
CODES = np.zeros((1, 1, 4), np.uint8)


def npy(shape: object, data: bytes = bytes(4), dtype: str = "|u1") -> bytes:
    """An array file of NumPy whose header states any shape."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write_npz(path, fields=FIELDS, codes: bytes | None = None, compression=zipfile.ZIP_STORED) -> None:
    header = io.BytesIO()
    np.save(header, np.array(fields if isinstance(fields, str) else json.dumps(fields)))
    array = io.BytesIO()
    np.save(array, CODES)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("zoo_codes.npy", header.getvalue())
        archive.writestr("codes.npy", array.getvalue() if codes is None else codes)


def error_of(path) -> str:
    """The error of loading, which takes less than 32 MB beyond what the file itself has."""
    tracemalloc.start()
    with pytest.raises(MediaError) as caught:
        load_codes(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32e6 + 16 * path.stat().st_size
    assert str(caught.value).startswith(f"{path}: not a code file, or a damaged one: ")
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame_rate": "x"}, "expected frame_rate as a number from 0.001 to 100000 frames a second, got 'x'"),
        ({"frame_rate": float("inf")}, "expected frame_rate as a number"),
        ({"frame_rate": float("nan")}, "expected frame_rate as a number"),
        ({"frame_rate": -25}, "expected frame_rate as a number"),
        ({"frame_rate": True}, "expected frame_rate as a number"),
        ({"codebook_sizes": 16}, "expected codebook_sizes as integers"),
        ({"codebook_sizes": ["16"]}, "expected codebook_sizes as integers"),
        ({"codebook_sizes": [True]}, "expected codebook_sizes as integers"),
        ({"codebook_sizes": [16] * 100_000}, "expected codes as [batch, 100000, *grid]"),
        ({"codebook_sizes": list(range(100_000))}, "expected codebook_sizes as integers"),
        ({"size": "4"}, "expected size as positive integers"),
        ({"size": [10**400]}, "expected size as positive integers"),
        ({"size": [4.0]}, "expected size as positive integers"),
        ({"size": {"a": 1}}, "expected size as positive integers"),
        ({"name": "n" * 10_000}, "expected name as a string of 1 to 256 characters"),
        ({"name": ["sample"]}, "expected name as a string"),
        ({"format": {"zoo": 1}}, "expected format 'zoo-codes-1'"),
        ({"options": [1]}, "expected options as a JSON object"),
        ({"source_bytes": "1"}, "expected source_bytes as an integer"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path, fields, message):
    write_npz(tmp_path / "codes.npz", FIELDS | fields)
    assert message in error_of(tmp_path / "codes.npz")


@pytest.mark.parametrize("missing", ["format", "name", "codebook_sizes"])
def test_a_field_that_is_missing_is_named(tmp_path, missing):
    write_npz(tmp_path / "codes.npz", {key: value for key, value in FIELDS.items() if key != missing})
    assert f"'zoo_codes' has no '{missing}'" in error_of(tmp_path / "codes.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[1]", "expected 'zoo_codes' as a JSON object, got list"),
        ("{", "not a code file"),
        (" " * 2**21, "expected 'zoo_codes' of at most 1048576 characters"),
    ],
)
def test_fields_that_are_no_object_are_refused(tmp_path, text, message):
    write_npz(tmp_path / "codes.npz", text)
    assert message in error_of(tmp_path / "codes.npz")


@pytest.mark.parametrize("shape", [(2**40,), (1, 1, 2**62), (2**40, 2**40), (-1, -4), (1, 1, 3), (1, 1, 10**30)])
def test_an_array_that_states_other_bytes_than_it_has_is_refused(tmp_path, shape):
    write_npz(tmp_path / "codes.npz", codes=npy(shape))
    assert "but holds 4" in error_of(tmp_path / "codes.npz")


@pytest.mark.parametrize("dtype", ["<f8", "|O", "<c16", "|b1", "|S4", "|V4", "<M8[s]", [("a", "<i4")]])
def test_an_array_that_holds_no_integers_is_refused(tmp_path, dtype):
    write_npz(tmp_path / "codes.npz", codes=npy((1, 1, 1), dtype=dtype))
    assert "integers" in error_of(tmp_path / "codes.npz")


def test_integers_that_do_not_fit_are_not_wrapped(tmp_path):
    write_npz(tmp_path / "codes.npz", codes=npy((1, 1, 1), b"\xff" * 8, "<u8"))
    assert "expected integers below 2 ** 63" in error_of(tmp_path / "codes.npz")


def test_a_small_file_that_unfolds_to_a_large_array_is_refused(tmp_path):
    size = 2**27
    write_npz(tmp_path / "codes.npz", codes=npy((1, 1, size), bytes(size)), compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "codes.npz").stat().st_size < 2**20
    assert "codes.npy: states 134217" in error_of(tmp_path / "codes.npz")


def test_packed_arrays_of_usual_size_are_read(tmp_path):
    write_npz(tmp_path / "codes.npz", compression=zipfile.ZIP_DEFLATED)
    assert load_codes(tmp_path / "codes.npz").codes.tolist() == [[[0, 0, 0, 0]]]


@pytest.mark.parametrize(
    "header",
    [
        {"codes": {"dtype": "U8", "shape": [1, 1, 2**40], "data_offsets": [0, 4]}},
        {"codes": {"dtype": "U8", "shape": [1, 1, 4], "data_offsets": [0, 2**40]}},
        {"codes": {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]}},
        {"codes": {"dtype": "BF16", "shape": [1, 1, 2], "data_offsets": [0, 4]}},
        {"codes": {"dtype": "BOOL", "shape": [1, 1, 4], "data_offsets": [0, 4]}},
    ],
)
def test_tensors_that_state_what_is_not_so_are_refused(tmp_path, header):
    path = tmp_path / "codes.safetensors"
    text = json.dumps({"__metadata__": {"zoo_codes": json.dumps(FIELDS)}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    error_of(path)


@pytest.mark.parametrize("length", [2**63, 2**40, 10])
def test_a_header_that_states_another_length_is_refused(tmp_path, length):
    path = tmp_path / "codes.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" * 100)
    error_of(path)


def test_files_from_before_options_were_recorded_are_read(tmp_path):
    write_npz(tmp_path / "codes.npz")
    file = load_codes(tmp_path / "codes.npz")
    assert (file.options, file.source_bytes, file.size) == (None, None, (4,))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_options_and_size_of_the_source_come_back(tmp_path, suffix):
    path, options = tmp_path / f"codes{suffix}", {"resolution": 64, "chain": "A"}
    codes = torch.zeros(1, 1, 4, dtype=torch.int64)
    save_codes(path, codes, name="sample", codebook_sizes=(16,), options=options, source_bytes=123)
    assert (load_codes(path).options, load_codes(path).source_bytes) == (options, 123)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("wetok-nano", {"codebook_sizes": (256, 512)}, rf"expected codebook_sizes \({', '.join(['256'] * 8)}\)"),
        ("wetok-nano", {"codes": (2, 8)}, r"expected codes of wetok-nano as \[batch, 8, height, width\]"),
        ("wetok-nano", {"size": (64,)}, r"expected a size of \(height, width\), got \(64,\)"),
        ("wetok-nano", {"size": (128, 256)}, "gives 8 x 16 codes, but holds 8 x 8, enough for 128 x 128"),
        ("wetok-nano", {"size": (128, 64)}, "gives 8 x 4 codes, but holds 8 x 8"),
    ],
)
def test_codes_that_their_tokenizer_does_not_give_are_refused(name, change, message):
    spec = zoo.info(name).spec
    shape = change.get("codes", (8, 8, 8))
    fields = {"codebook_sizes": spec.codebook_sizes, "size": (128, 128)} | {
        k: v for k, v in change.items() if k != "codes"
    }
    file = CodeFile(torch.zeros(1, *shape, dtype=torch.int64), name, **fields)
    with pytest.raises(InputError, match=message):
        file.check(spec)
