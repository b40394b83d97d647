"""BinaryCIF files, whose columns state how long they are: read after that has been compared with what they hold.

biotite decodes the columns; it makes arrays of the stated lengths, and fills with zeros what a column lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import BinaryCIFFile

ATOMS = "_atom_site"
MOST_TEXT, LARGEST_RATIO = 2**26, 64  # bytes that a column of strings may unfold to, or this multiple of the file's
SIZED = ("RunLength", "IntegerPacking")


def read_binary_cif(content: bytes) -> BinaryCIFFile:
    """Return a file whose table of atoms is what it states, and unfolds to a fixed multiple of the file's bytes.

    Raises:
        ValueError: columns that state other lengths than they have, or more than the file can hold.
        Exception: a damaged file.
    """
    from biotite.structure.io.pdbx import BinaryCIFFile

    tree = msgpack.unpackb(content)
    for block in tree["dataBlocks"]:
        for category in block["categories"]:
            if category["name"] == ATOMS:
                for column in category["columns"]:
                    _check_column(column, category["rowCount"], len(content))
    return BinaryCIFFile.deserialize(tree)


def _check_column(column: dict[str, Any], rows: int, num_bytes: int) -> None:
    for part in (column["data"], column["mask"]):
        if part is None:
            continue
        for name, data, encodings in _encoded(part["data"], part["encoding"]):
            _check_sizes(f"column {column['name']!r}{name}", data, encodings, num_bytes)
        first = part["encoding"][0]
        if first["kind"] == "StringArray":
            offsets = _decoded(first["offsets"], first["offsetEncoding"])
            longest = int(np.diff(offsets).max(initial=0))
            text = 4 * longest * max(rows, len(offsets))  # NumPy has strings of one length, four bytes a character
            if text > max(MOST_TEXT, LARGEST_RATIO * num_bytes):
                raise ValueError(f"column {column['name']!r} unfolds to {text} bytes of text")


def _encoded(data: bytes, encodings: list[dict[str, Any]]) -> Iterator[tuple[str, bytes, list[dict[str, Any]]]]:
    """Yield the encoded arrays of a column, with what names them: itself, or the parts of an array of strings."""
    if encodings[0]["kind"] != "StringArray":
        yield "", data, encodings
        return
    yield "", data, encodings[0]["dataEncoding"]
    yield ", its strings", encodings[0]["offsets"], encodings[0]["offsetEncoding"]


def _check_sizes(what: str, data: bytes, encodings: list[dict[str, Any]], num_bytes: int) -> None:
    for number, encoding in reversed(list(enumerate(encodings))):
        if encoding["kind"] not in SIZED:
            continue
        stated = encoding["srcSize"]
        if type(stated) is not int or not 0 <= stated <= num_bytes:  # an atom takes more than a byte
            raise ValueError(f"{what} states {stated!r} values in a file of {num_bytes} bytes")
        packed = _decoded(data, encodings[number + 1 :])
        if encoding["kind"] == "RunLength":
            runs = packed[1::2].astype(np.int64)
            held = int(runs.sum()) if not (runs < 0).any() else -1
        else:
            limits = np.iinfo(packed.dtype)
            held = int(((packed != limits.max) & ((packed != limits.min) | (limits.min == 0))).sum())
        if held != stated:
            raise ValueError(f"{what} states {stated} values, but holds {held}")


def _decoded(data: bytes, encodings: list[dict[str, Any]]) -> np.ndarray:
    from biotite.structure.io.pdbx import BinaryCIFData

    array: np.ndarray = BinaryCIFData.deserialize({"data": data, "encoding": encodings}).array
    return array
