"""Code files as `zoo encode` writes them and `zoo decode` reads them, a folder for each shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zoo.codes import load_codes, save_codes
from zoo.corpus.rows import Row, StoredRow
from zoo.corpus.sinks.base import Sink
from zoo.corpus.sinks.names import Names
from zoo.corpus.sinks.records import as_line, read_lines, record, stored_row
from zoo.files import atomic_folder

LINES = "items.jsonl"


class NpzSink(Sink):
    """`SHARD/NAME.npz` for each item, see `zoo.codes.save_codes`, where a name is the key made safe, see `Names`.

    `SHARD/items.jsonl` has a line for each item: the fields of `records.record`, and `file`, the path in the folder.
    """

    format = "npz"
    pattern = f"[!.]*/{LINES}"

    def files(self, shard: str) -> tuple[str, ...]:
        return (shard,)

    def write_rows(self, paths: Sequence[Path], rows: Iterable[Row]) -> None:
        names = Names(self.facts.modality)
        with atomic_folder(paths[0]) as temporary, (temporary / LINES).open("wb") as lines:
            for row in rows:
                file = f"{names.of(row.key)}.npz"
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                save_codes(
                    temporary / file,
                    row.codes[None],
                    name=self.facts.tokenizer,
                    codebook_sizes=self.facts.codebook_sizes,
                    size=row.size,
                    frame_rate=row.frame_rate,
                    pixel_aspect=row.pixel_aspect,
                    options=self.facts.options,
                )
                lines.write(as_line({**record(row, self.facts), "file": file}))

    @staticmethod
    def read_shard(path: Path) -> Iterator[StoredRow]:
        for fields in read_lines(path):
            yield stored_row(fields, load_codes(path.parent / fields["file"]).codes[0])
