"""What every format states of an item, beside its codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from zoo.codes.checks import check_codes, check_size, check_sizes
from zoo.corpus.rows import Facts, Row, StoredRow


def record(row: Row, facts: Facts) -> dict[str, Any]:
    """Return what is true of an item, by name, as JSON has it. Bytes of a name that are no text are escaped."""
    return {
        "id": _text(row.id),
        "source": _text(row.source),
        "key": _text(row.key),
        "grid": list(row.codes.shape[1:]),
        "size": list(row.size),
        "sample_rate": facts.sample_rate,
        "frame_rate": row.frame_rate,
        "pixel_aspect": row.pixel_aspect,
        "tokenizer": facts.tokenizer,
        "weights": facts.weights,
        "codebook_sizes": list(facts.codebook_sizes),
    }


def stored_row(record: Mapping[str, Any], codes: Tensor) -> StoredRow:
    """Return the row of a record and its codes, integers `[num_codebooks, *grid]`; InputError if they do not agree."""
    sizes = check_sizes(list(record["codebook_sizes"]))
    checked = check_codes(codes[None], sizes)
    return StoredRow(
        source=record["source"],
        key=record["key"],
        codes=checked[0],
        size=check_size(tuple(record["size"]), checked),
        frame_rate=record["frame_rate"],
        pixel_aspect=record["pixel_aspect"],
        tokenizer=record["tokenizer"],
        weights=record["weights"],
        codebook_sizes=sizes,
        sample_rate=record["sample_rate"],
    )


def as_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def narrow(facts: Facts) -> np.dtype:
    """Return the narrowest type for codes that NumPy, PyTorch, Arrow and DuckDB compute with."""
    most = max(facts.codebook_sizes)
    if most <= 2**8:
        return np.dtype("u1")
    if most <= 2**16:
        return np.dtype("<u2")
    return np.dtype("<i4") if most <= 2**31 else np.dtype("<i8")


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
