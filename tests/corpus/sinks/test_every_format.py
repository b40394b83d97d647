"""What holds of a corpus in any format."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.corpora import LAYOUTS, SHARD, counted_rows, facts, failing_rows, rows
from zoo.corpus import sinks
from zoo.corpus.rows import Row
from zoo.errors import InputError, MediaError

every_format = pytest.mark.parametrize("format", sinks.FORMATS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every_format
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_come_back_as_they_were(format, layout, tmp_path):
    sink = sinks.create(format, tmp_path, facts(layout))
    sink.finish([sink.write("0", rows(layout)), sink.write("1", rows(layout, 2))])
    found = list(sinks.read(tmp_path))
    for row, wanted in zip(found, [*rows(layout), *rows(layout, 2)], strict=True):
        assert torch.equal(row.codes, wanted.codes) and row.codes.dtype == torch.int64
        assert (row.id, row.source, row.key, row.size) == (wanted.id, wanted.source, wanted.key, wanted.size)
        assert (row.frame_rate, row.pixel_aspect) == (wanted.frame_rate, wanted.pixel_aspect)
        about = facts(layout)
        assert (row.tokenizer, row.weights) == (about.tokenizer, about.weights)
        assert (row.codebook_sizes, row.sample_rate) == (about.codebook_sizes, about.sample_rate)


@every_format
def test_files_are_named_and_are_all_that_is_written(format, tmp_path):
    files = sinks.create(format, tmp_path, facts()).write(SHARD, rows())
    assert all(SHARD in file for file in files)
    assert all(path.startswith(files) for path in contents(tmp_path))


@every_format
def test_the_same_rows_give_the_same_bytes(format, tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        sink = pickle.loads(pickle.dumps(sinks.create(format, folder, facts())))
        files = sink.write(SHARD, rows())
        if format != "megatron":  # whose data_path.txt has the path of the folder
            sink.finish([files])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@every_format
def test_finishing_twice_changes_nothing(format, tmp_path):
    sink = sinks.create(format, tmp_path, facts())
    files = [sink.write(SHARD, rows()), sink.write("4", ())]
    sink.finish(files)
    before = contents(tmp_path)
    sink.finish(files)
    assert contents(tmp_path) == before


@every_format
def test_an_error_of_the_rows_leaves_nothing(format, tmp_path):
    with pytest.raises(RuntimeError, match="the source broke"):
        sinks.create(format, tmp_path, facts()).write(SHARD, failing_rows())
    assert contents(tmp_path) == {}


@every_format
def test_an_error_of_the_rows_leaves_what_was_there(format, tmp_path):
    sink = sinks.create(format, tmp_path, facts())
    sink.write(SHARD, rows())
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="the source broke"):
        sink.write(SHARD, failing_rows())
    assert contents(tmp_path) == before


@every_format
def test_a_shard_written_again_replaces_the_old_one(format, tmp_path):
    sink = sinks.create(format, tmp_path, facts())
    sink.write(SHARD, rows(count=5))
    sink.write(SHARD, rows(count=2))
    assert len(list(sinks.read(tmp_path))) == 2


@every_format
def test_a_shard_without_rows_has_no_files(format, tmp_path):
    sink = sinks.create(format, tmp_path, facts())
    assert sink.write(SHARD, iter(())) == ()
    assert contents(tmp_path) == {}
    sink.write(SHARD, rows())
    assert sink.write(SHARD, iter(())) == ()
    assert contents(tmp_path) == {}


@every_format
def test_rows_are_made_as_they_are_written(format, tmp_path):
    alive: list[int] = []
    count = 100 if format == "npz" else 2500
    sinks.create(format, tmp_path, facts()).write(SHARD, counted_rows(alive, count))
    assert len(alive) == count
    assert max(alive) == 1  # the one that was written last


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no signal that kills, and no locks")
def test_what_a_killed_process_has_left_is_removed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_sinks", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for format in sinks.FORMATS:
        left = [path.name for path in (tmp_path / format).rglob(".zoo-*")]
        assert left, format
        sinks.create(format, tmp_path / format, facts()).remove_leftovers()
        assert not list((tmp_path / format).rglob(".zoo-*")), format
        assert contents(tmp_path / format) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no locks")
@every_format
def test_what_is_being_written_is_no_leftover(format, tmp_path):
    sink = sinks.create(format, tmp_path, facts())

    def watched():
        yield from rows(count=2)
        sink.remove_leftovers()
        yield from rows(count=1)

    sink.write(SHARD, watched())
    assert len(list(sinks.read(tmp_path))) == 3


@every_format
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.tensor([[0, 1], [2, 16], [0, 0]])}, r"expected codes of codebook 1 in \[0, 16\), got 2 to 16"),
        ({"codes": torch.zeros(2, 5, dtype=torch.int64)}, r"expected codes as \[batch, 3, \*grid\]"),
        ({"codes": torch.zeros(3, 5)}, "expected codes as an integer tensor"),
        ({"size": (0,)}, "expected size as positive integers"),
        ({"frame_rate": -1.0}, "expected frame_rate"),
        ({"pixel_aspect": 0.0}, "expected pixel_aspect"),
    ],
)
def test_a_row_that_does_not_fit_is_named(format, change, message, tmp_path):
    good = {"codes": torch.zeros(3, 5, dtype=torch.int64), "size": (1600,)}
    with pytest.raises(InputError, match=f"^folder:a.flac: {message}"):
        sinks.create(format, tmp_path, facts()).write(SHARD, [Row("folder", "a.flac", **(good | change))])
    assert contents(tmp_path) == {}


@every_format
def test_names_that_are_no_text_are_escaped(format, tmp_path):
    row = Row("folder", b"caf\xe9.flac".decode("utf-8", "surrogateescape"), torch.zeros(3, 5, dtype=torch.int64), (9,))
    sinks.create(format, tmp_path, facts()).write(SHARD, [row])
    assert [found.key for found in sinks.read(tmp_path)] == [r"caf\udce9.flac"]


@every_format
def test_a_damaged_shard_is_named(format, tmp_path):
    (file, *_) = files = sinks.create(format, tmp_path, facts()).write(SHARD, rows())
    damaged = tmp_path / (f"{file}/items.jsonl" if format == "npz" else files[-1])
    damaged.write_bytes(damaged.read_bytes()[:30])
    with pytest.raises(MediaError, match="not a shard of a corpus, or a damaged one"):
        list(sinks.read(tmp_path))


def test_a_folder_without_a_corpus_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="holds no corpus"):
        sinks.read(tmp_path)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("csv", {}, "expected format as one of parquet, megatron, webdataset, npz, huggingface, got 'csv'"),
        ("parquet", {"media": True}, "parquet takes no options, got 'media', which is an option of webdataset"),
        ("webdataset", {"shuffle": 1}, "webdataset takes the options media, got 'shuffle'"),
        ("webdataset", {"media": "yes"}, "expected media as bool, got 'yes'"),
        ("megatron", {"pattern": "zigzag"}, "expected pattern as one of frame_first, coarse_first, parallel, delay"),
        ("megatron", {"markers": ("eos",)}, "expected markers as some of begin, end, row, frame"),
        ("megatron", {"offset": -1}, "expected offset as an integer of at least 0"),
        ("megatron", {"offset": 2**31}, r"takes ids below 2 \*\* 31"),
    ],
)
def test_formats_and_options_are_checked(format, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        sinks.create(format, tmp_path, facts(), **options)


@pytest.mark.parametrize("shard", ["", "../up", "a/b", ".hidden", "two words"])
def test_a_shard_needs_a_plain_name(shard, tmp_path):
    with pytest.raises(InputError, match="expected the name of a shard"):
        sinks.create("npz", tmp_path, facts()).write(shard, rows())


@pytest.mark.parametrize("format", ["parquet", "huggingface"])
def test_a_missing_package_is_named_with_its_extra(format, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=rf"{format} needs pyarrow: pip install 'tokenizer-zoo\[scale\]'"):
        sinks.create(format, tmp_path, facts())
