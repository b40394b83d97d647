"""Parquet: a row for each item, which `datasets`, pandas, DuckDB and Spark read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.corpus.rows import Facts, Row, StoredRow
from zoo.corpus.sinks.base import Sink
from zoo.corpus.sinks.records import narrow, record, stored_row
from zoo.errors import InputError
from zoo.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS, MOST_CODES = 1000, 2**22  # of a row group, which is in memory while it is written or read


class ParquetSink(Sink):
    """`SHARD.parquet`: the fields of `records.record`, and `codes`, a list of positions for each codebook.

    Codes are uint8, uint16, int32 or int64, as the codebooks need; `grid` holds their axes. A field that an item does
    not have is null. Row groups hold up to 1,000 rows and about 4 million codes; compression is zstd.
    """

    format = "parquet"
    pattern = "[!.]*.parquet"

    def __init__(self, folder: Path, facts: Facts):
        try:
            import pyarrow.parquet  # noqa: F401 - now rather than after hours
        except ImportError as error:
            raise InputError(
                f"the format {self.format} needs pyarrow: pip install 'tokenizer-zoo[scale]' ({error})"
            ) from error
        super().__init__(folder, facts)

    def files(self, shard: str) -> tuple[str, ...]:
        return (f"{shard}.parquet",)

    def write_rows(self, paths: Sequence[Path], rows: Iterable[Row]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema()
        dtype = narrow(self.facts)
        group: list[dict[str, Any]] = []
        num_codes = 0

        with (
            atomic_path(paths[0], overwrite=True) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for row in rows:
                group.append({**record(row, self.facts), "codes": row.codes.flatten(1).numpy().astype(dtype)})
                num_codes += row.codes.numel()
                if len(group) >= MOST_ROWS or num_codes >= MOST_CODES:
                    writer.write_table(pa.table(_columns(group, schema), schema))
                    group, num_codes = [], 0
            if group:
                writer.write_table(pa.table(_columns(group, schema), schema))

    @staticmethod
    def read_shard(path: Path) -> Iterator[StoredRow]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number).combine_chunks()
                codes = table.column("codes").chunk(0)
                for place, fields in enumerate(table.drop_columns("codes").to_pylist()):
                    values = codes[place].values.flatten().to_numpy().astype(np.int64)
                    shape = (len(fields["codebook_sizes"]), *fields["grid"])
                    yield stored_row(fields, torch.from_numpy(values.reshape(shape)))

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        lengths = pa.list_(pa.int64())
        types = {
            "id": pa.string(),
            "source": pa.string(),
            "key": pa.string(),
            "codes": pa.list_(pa.list_(pa.from_numpy_dtype(narrow(self.facts)))),
            "grid": lengths,
            "size": lengths,
            "sample_rate": pa.int64(),
            "frame_rate": pa.float64(),
            "pixel_aspect": pa.float64(),
            "tokenizer": pa.string(),
            "weights": pa.string(),
            "codebook_sizes": lengths,
        }
        return pa.schema(list(types.items()))


def _columns(group: list[dict[str, Any]], schema: pa.Schema) -> list[pa.Array]:
    import pyarrow as pa

    codes = [fields.pop("codes") for fields in group]  # each [num_codebooks, positions]
    ends = np.cumsum([0, *(width for item in codes for width in [item.shape[1]] * len(item))], dtype=np.int32)
    lists = pa.ListArray.from_arrays(ends, np.concatenate([item.ravel() for item in codes]))
    items = np.cumsum([0, *map(len, codes)], dtype=np.int32)
    made = {"codes": pa.ListArray.from_arrays(items, lists)}
    return [
        made.get(field.name) if field.name in made else pa.array([fields[field.name] for fields in group], field.type)
        for field in schema
    ]
