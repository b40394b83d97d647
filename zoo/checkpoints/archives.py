"""Files that torch writes: zip archives, also of TorchScript, and the pickles from before torch 1.6.

The tensors of an archive stay in the file, which is mapped; no memory is allocated for sizes that a file only states.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints.pickles import ScriptObject, read_pickle
from zoo.checkpoints.torchscript import declared_tensors, named_tensors
from zoo.errors import CheckpointError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first values in files from before torch 1.6
PICKLE_BYTES = 2**26  # of a pickle or of the source code in an archive; the largest published ones have a few million


def read_torch_file(path: Path) -> Any:
    """Return what `torch.save` or `torch.jit.save` put into a file; for a TorchScript module, its state dict.

    Raises:
        CheckpointError: a file that asks for something that could run code.
        Exception: a damaged file.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ValueError("empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if not zipfile.is_zipfile(path):
        return _read_old_file(mapped, str(path))
    with zipfile.ZipFile(path) as archive:
        members = _Archive(archive, mapped, str(path))
        content = read_pickle(BytesIO(members.text("data.pkl")), members.storage, str(path))
        if not members.is_torchscript:
            return content
        if not isinstance(content, ScriptObject):
            raise CheckpointError(f"{path}: expected a TorchScript module, found a {type(content).__name__}")
        return named_tensors(content, declared_tensors(members.code()))


class _Archive:
    """The members of a zip archive of torch's: one folder, `ROOT/data.pkl` and `ROOT/data/KEY`."""

    def __init__(self, archive: zipfile.ZipFile, mapped: mmap.mmap, source: str):
        self.archive, self.mapped, self.source = archive, mapped, source
        self.members = {info.filename: info for info in archive.infolist()}
        if len(self.members) != len(archive.infolist()):
            raise ValueError("two members with the same name")
        roots = [name.removesuffix("/data.pkl") for name in self.members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{len(roots)} members data.pkl")
        self.root = roots[0]
        if sum(info.compress_size for info in self.members.values()) > len(mapped):
            raise ValueError("members that overlap")
        if "byteorder" in self and self.text("byteorder").strip() != b"little":
            raise ValueError("bytes in big-endian order")
        self.storages: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        return f"{self.root}/{name}" in self.members

    @property
    def is_torchscript(self) -> bool:
        return "constants.pkl" in self

    def text(self, name: str) -> bytes:
        """Return a member that may be compressed."""
        info = self.members[f"{self.root}/{name}"]
        content = b""
        if info.file_size <= PICKLE_BYTES and info.compress_type == zipfile.ZIP_STORED:
            start = self.start(info)
            self.check(info, start)
            content = self.mapped[start : start + info.file_size]
        elif info.file_size <= PICKLE_BYTES:
            with self.archive.open(info) as file:
                content = file.read(PICKLE_BYTES + 1)
        if info.file_size > PICKLE_BYTES or len(content) > PICKLE_BYTES:
            raise ValueError(f"{name} has more than {PICKLE_BYTES:,} bytes")
        return content

    def start(self, info: zipfile.ZipInfo) -> int:
        """Return where the content of an uncompressed member begins in the file; it is checked to be complete."""
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{info.filename} is compressed")
        signature, names, extra = struct.unpack_from("<4s22xHH", self.mapped, info.header_offset)
        start = info.header_offset + 30 + names + extra
        if signature != b"PK\x03\x04" or start + info.file_size > len(self.mapped):
            raise ValueError(f"{info.filename} is cut short")
        return start

    def check(self, info: zipfile.ZipInfo, start: int) -> None:
        """Compare a member's checksum with the one in the archive, if there is one: torch may leave it out."""
        with memoryview(self.mapped) as view, view[start : start + info.file_size] as content:
            if info.CRC not in (0, zlib.crc32(content)):
                raise ValueError(f"{info.filename} is damaged: its checksum differs")

    def code(self) -> Mapping[str, str]:
        """Return the source of each module that a TorchScript archive defines."""
        prefix, texts, size = f"{self.root}/code/", {}, 0
        for name in self.members:
            if name.startswith(prefix) and name.endswith(".py"):
                content = self.text(name.removeprefix(f"{self.root}/"))
                size += len(content)
                if size > PICKLE_BYTES:
                    raise ValueError(f"code of more than {PICKLE_BYTES:,} bytes")
                texts[name.removeprefix(prefix).removesuffix(".py").replace("/", ".")] = content.decode()
        return texts

    def storage(self, dtype: torch.dtype, key: str, count: int) -> Tensor:
        """Return the memory of tensors, mapped from the file."""
        if key not in self.storages:
            info = self.members.get(f"{self.root}/data/{key}")
            if info is None:
                raise ValueError(f"no memory {key[:20]!r}")
            start = self.start(info)
            if self.is_torchscript:  # converted once; other archives stay mapped and are not read ahead
                self.check(info, start)
            self.storages[key] = _tensor(self.mapped, torch.uint8, info.file_size, start)
        memory = self.storages[key]
        if len(memory) != count * dtype.itemsize:
            raise ValueError(f"memory {key} has {len(memory):,} bytes, expected {count:,} elements of {dtype}")
        if memory.data_ptr() % dtype.itemsize:  # an archive that torch did not write: it aligns them
            memory = self.storages[key] = memory.clone()
        return memory.view(dtype)


def _read_old_file(mapped: mmap.mmap, source: str) -> Any:
    """Read what torch wrote before version 1.6: pickles, then the memory of the tensors, which is copied."""
    storages: dict[str, Tensor] = {}
    left = len(mapped)

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        nonlocal left
        if key not in storages:
            left -= count * dtype.itemsize
            if left < 0:
                raise ValueError(f"memory {key[:20]!r} of {count:,} elements in a file of {len(mapped):,} bytes")
            storages[key] = torch.empty(count, dtype=dtype)
        if len(storages[key]) != count or storages[key].dtype != dtype:
            raise ValueError(f"memory {key[:20]!r} in two sizes")
        return storages[key]

    def none(*_: Any) -> Tensor:
        raise ValueError("tensors before the first pickle")

    if mapped[:1] != pickle.PROTO:
        raise ValueError("neither an archive nor a pickle")
    mapped.seek(0)
    magic = read_pickle(mapped, none, source)
    if magic != MAGIC:
        raise ValueError("a pickle that torch did not write")
    if read_pickle(mapped, none, source) != PROTOCOL:
        raise ValueError("an unknown version of torch's pickles")
    read_pickle(mapped, none, source)  # about the machine that wrote it
    content = read_pickle(mapped, storage, source)
    keys = read_pickle(mapped, none, source)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise ValueError("a part of the tensors' memory is missing")
    for key in keys:
        (count,) = struct.unpack("<q", mapped.read(8))
        memory = storages[key]
        if count != len(memory):
            raise ValueError(f"memory {key} has {count:,} elements, expected {len(memory):,}")
        size = count * memory.dtype.itemsize
        if mapped.tell() + size > len(mapped):
            raise ValueError(f"memory {key} is cut short")
        if size:
            memory.view(torch.uint8).copy_(_tensor(mapped, torch.uint8, size, mapped.tell()))
        mapped.seek(size, 1)
    return content


def _tensor(mapped: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset) if count else torch.empty(0, dtype=dtype)
