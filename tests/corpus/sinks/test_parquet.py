"""Parquet as other programs read it."""

import datasets
import duckdb
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.corpora import LAYOUTS, SHARD, facts, rows
from zoo.corpus import sinks
from zoo.corpus.rows import Facts, Row

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def file(tmp_path, layout):
    sinks.create("parquet", tmp_path, facts(layout)).write(SHARD, rows(layout))
    return str(tmp_path / f"{SHARD}.parquet")


def check(found: list[dict], layout: str) -> None:
    about = facts(layout)
    for fields, row in zip(found, rows(layout), strict=True):
        codes = torch.tensor(np.stack([np.asarray(codebook) for codebook in fields["codes"]]).astype(np.int64))
        assert torch.equal(codes.reshape(-1, *fields["grid"]), row.codes)
        assert (fields["id"], fields["source"], fields["key"]) == (row.id, row.source, row.key)
        assert tuple(fields["size"]) == row.size
        for name, value in {
            "sample_rate": about.sample_rate,
            "frame_rate": row.frame_rate,
            "pixel_aspect": row.pixel_aspect,
            "tokenizer": about.tokenizer,
            "weights": about.weights,
        }.items():
            assert fields[name] == value or (value is None and pandas.isna(fields[name]))
        assert tuple(fields["codebook_sizes"]) == about.codebook_sizes


@every_layout
def test_datasets_reads_it(file, layout, tmp_path):
    table = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    check(list(table), layout)


@every_layout
def test_datasets_streams_it(file, layout):
    check(list(datasets.load_dataset("parquet", data_files=file, split="train", streaming=True)), layout)


@every_layout
def test_pandas_reads_it(file, layout):
    check(pandas.read_parquet(file).to_dict("records"), layout)


@every_layout
def test_duckdb_reads_it(file, layout):
    found = duckdb.sql(f"select * from '{file}'")
    check([dict(zip(found.columns, row, strict=True)) for row in found.fetchall()], layout)


@pytest.mark.parametrize(
    ("size", "stored", "queried"),
    [
        (256, "uint8", "UTINYINT"),
        (257, "uint16", "USMALLINT"),
        (2**16, "uint16", "USMALLINT"),
        (2**16 + 1, "int32", "INTEGER"),
        (2**31, "int32", "INTEGER"),
        (2**31 + 1, "int64", "BIGINT"),
    ],
)
def test_codes_are_as_narrow_as_the_codebooks(size, stored, queried, tmp_path):
    about = Facts("sample", "0f", "audio", (2, size), 24000, "MIT", {})
    codes = torch.tensor([[0, 1], [0, size - 1]])
    sinks.create("parquet", tmp_path, about).write(SHARD, [Row("source", "a.wav", codes, (640,))])
    file = tmp_path / f"{SHARD}.parquet"
    assert str(pq.read_schema(file).field("codes").type.value_type.value_type) == stored
    assert duckdb.sql(f"select codes from '{file}'").types == [f"{queried}[][]"]
    assert duckdb.sql(f"select codes from '{file}'").fetchall() == [(codes.tolist(),)]
    features = datasets.load_dataset("parquet", data_files=str(file), split="train", streaming=True).features
    assert features["codes"].feature.feature.dtype == stored
    assert torch.equal(next(sinks.read(tmp_path)).codes, codes)


def test_row_groups_are_bounded_in_rows_and_in_codes(tmp_path):
    sink = sinks.create("parquet", tmp_path, facts("structures"))
    short, long = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 2**22, dtype=torch.int64)
    sink.write("short", (Row("source", str(number), short, (1,)) for number in range(2001)))
    sink.write("long", (Row("source", str(number), long, (2**22,)) for number in range(2)))
    for name, groups in {"short": [1000, 1000, 1], "long": [1, 1]}.items():
        metadata = pq.read_metadata(tmp_path / f"{name}.parquet")
        assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == groups
        assert metadata.row_group(0).column(0).compression == "ZSTD"
