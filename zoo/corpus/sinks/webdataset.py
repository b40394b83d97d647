"""WebDataset: tar files whose neighbouring members with a common name are one item."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from zoo.corpus.rows import Facts, Row, StoredRow
from zoo.corpus.sinks.base import Sink
from zoo.corpus.sinks.names import Names
from zoo.corpus.sinks.records import narrow, record, stored_row
from zoo.errors import MediaError
from zoo.files import atomic_path
from zoo.modalities import MediaBytes

CODES, RECORD = "codes.npy", "json"


class WebDatasetSink(Sink):
    """`SHARD.tar` with `NAME.codes.npy` and `NAME.json`, the fields of `records.record`, for each item in its order.

    A name is the item's key made safe, see `Names`; the record has the id. Codes are `[num_codebooks, *grid]` in uint8,
    uint16, int32 or int64, as the codebooks need.

    Args:
        media: whether the item's file lies beside, bytes unchanged, as `NAME.flac` for FLAC; `NAME.bin` if its name
            tells no format, and none where the item has no file.
    """

    format = "webdataset"
    pattern = "[!.]*.tar"

    def __init__(self, folder: Path, facts: Facts, *, media: bool = False):
        super().__init__(folder, facts)
        self.media = media

    def files(self, shard: str) -> tuple[str, ...]:
        return (f"{shard}.tar",)

    def write_rows(self, paths: Sequence[Path], rows: Iterable[Row]) -> None:
        names = Names(self.facts.modality)
        dtype = narrow(self.facts)
        with (
            atomic_path(paths[0], overwrite=True) as temporary,
            tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
        ):
            for row in rows:
                name = names.of(row.key)
                codes = io.BytesIO()
                np.save(codes, row.codes.numpy().astype(dtype), allow_pickle=False)
                text = json.dumps(record(row, self.facts), ensure_ascii=False).encode()
                members: dict[str, BinaryIO] = {f".{CODES}": codes, f".{RECORD}": io.BytesIO(text)}
                with ExitStack() as stack:
                    if self.media and row.media is not None:
                        suffix = names.suffix(str(row.media)).lower() or ".bin"
                        members[suffix] = stack.enter_context(_opened(row.media))
                    for suffix, file in sorted(members.items()):
                        _add(archive, f"{name}{suffix}", file)
                archive.members = []  # type: ignore[attr-defined]  # it would grow with the number of items

    @staticmethod
    def read_shard(path: Path) -> Iterator[StoredRow]:
        with tarfile.open(path, "r|", encoding="utf-8") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and member.name.endswith(f".{CODES}"):
                    codes = np.load(io.BytesIO(file.read()), allow_pickle=False).astype(np.int64)
                elif file is not None and member.name.endswith(f".{RECORD}"):
                    yield stored_row(json.load(file), torch.from_numpy(codes))
                archive.members = []  # type: ignore[attr-defined]


def _opened(media: Path | MediaBytes) -> BinaryIO:
    try:
        return io.BytesIO(media.content) if isinstance(media, MediaBytes) else media.open("rb")
    except OSError as error:
        raise MediaError(f"{media}: cannot be read: {error.strerror or error}") from error


def _add(archive: tarfile.TarFile, name: str, file: BinaryIO) -> None:
    """Add a member with nothing of this machine or hour in it."""
    member = tarfile.TarInfo(name)  # mode 0o644, time 0, owner 0
    member.size = file.seek(0, io.SEEK_END)
    file.seek(0)
    archive.addfile(member, file)
