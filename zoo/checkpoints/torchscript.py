"""TorchScript archives as data: their tensors, with the names that they have in the `state_dict`.

An archive is a zip of a pickle, `data.pkl`, of raw storages, `data/N`, and of source code, `code/`. Loading it with
torch would run the `__setstate__` of its classes. Here an unpickler that makes only tensors and containers reads the
pickle, and only the lists of each class's parameters and buffers are read from the code, as text.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
DECLARED = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)


def is_torchscript(path: Path) -> bool:
    """Return whether a zip archive is one that `torch.jit.save` writes."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a TorchScript module by their dotted names.

    Raises:
        CheckpointError: an archive that is damaged, or a pickle that holds anything but modules, tensors and plain
            values.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rpartition("/")[0]
        with archive.open(f"{root}/data.pkl") as file:
            module = Unpickler(file, archive, root, path).load()
        declared = _declared_tensors(archive, root)
    if not isinstance(module, ScriptObject):
        raise CheckpointError(f"{path}: expected a TorchScript module, found a {type(module).__name__}")
    return dict(_tensors(module, "", declared))


class ScriptObject:
    """An object of a class that the archive defines: the name of the class, and the attributes."""

    kind: str

    def __init__(self) -> None:
        self.attributes: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class Unpickler(pickle.Unpickler):
    """Makes `ScriptObject`s, tensors, containers and plain values; CheckpointError for any other class or function."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str, path: Path):
        super().__init__(file)
        self.archive, self.root, self.path = archive, root, path
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("ScriptObject", (ScriptObject,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, type_name: value,
            **{("torch.jit._pickle", builder): list for builder in LISTS},
        }
        if (module, name) not in known:
            raise CheckpointError(f"{self.path}: refused, since it asks for {module}.{name}, which could run code")
        return known[module, name]

    def persistent_load(self, identity: Any) -> Tensor:
        kind, dtype, key, _, numel = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"{self.path}: expected a storage of a known type, found {identity!r}")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            if len(data) != numel * dtype.itemsize:
                raise CheckpointError(
                    f"{self.path}: storage {key} has {len(data)} bytes, expected {numel * dtype.itemsize}"
                )
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]


def rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Return a pickled tensor: a view of its storage, which has to be large enough."""
    if math.prod(size) == 0:
        return storage.new_empty(size)
    return storage.as_strided(size, stride, offset)


def _declared_tensors(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Return the names of the parameters and buffers of each class that the archive defines."""
    declared = {}
    for name in archive.namelist():
        if name.startswith(f"{root}/code/") and name.endswith(".py"):
            module = name.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
            text = archive.read(name).decode()
            starts = [*(match.start() for match in CLASS.finditer(text)), len(text)]
            for start, end in pairwise(starts):
                body = text[start:end]
                names = {quoted for block in DECLARED.findall(body) for quoted in re.findall(r'"([^"]+)"', block)}
                declared[f"{module}.{CLASS.match(body)[1]}"] = names  # type: ignore[index]  # it starts there
    return declared


def _tensors(module: ScriptObject, prefix: str, declared: Mapping[str, set[str]]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module.attributes, Mapping):
        return
    names = declared.get(module.kind, set())
    for name, value in module.attributes.items():
        if isinstance(value, ScriptObject):
            yield from _tensors(value, f"{prefix}{name}.", declared)
        elif isinstance(value, Tensor) and name in names:
            yield f"{prefix}{name}", value
