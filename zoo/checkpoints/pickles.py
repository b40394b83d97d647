"""Pickles as data: a reader of the format's instructions that makes plain values and tensors, and calls nothing else.

Neither Python's unpickler nor torch's is used. Those call what a file names, and even the few names that torch allows
can be made to take any amount of memory or time. Here a name is one of the few that this module knows, is one of
training's leftovers (`BYSTANDERS`), or is refused.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError

# What training code pickles beside the tensors: arguments, configurations, the state of callbacks.
BYSTANDERS = re.compile(
    r"(argparse|omegaconf|pytorch_lightning|lightning|lightning_fabric|numpy|pathlib|collections|typing|enum)\."
    r"|(builtins|__builtin__)\.(list|dict|tuple|int|float|bool|str|object|bytearray|complex)$"
)
INSTRUCTIONS = 2_000_000  # most instructions of a pickle; a tensor takes about 30
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
REBUILT = {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3")}
WRAPPED = {f"torch._utils._rebuild_{kind}" for kind in ("parameter", "parameter_with_state")}
OTHER_TENSOR = re.compile(r"torch\._utils\._rebuild_(\w+?)(?:_tensor)?(?:_no_storage|_from_numpy|_from_cpu_tensor)?$")
CONSTANTS = (torch.dtype, torch.layout, torch.qscheme, torch.memory_format)
KEYS = (str, bytes, int, float, bool, type(None))  # of mappings and sets; the hash of a nested tuple can take for ever

Storage = Callable[[torch.dtype, str, int], Tensor]


class Name:
    """A class or function that a pickle names; it is never looked up."""

    def __init__(self, name: str):
        self.name = name


class Dropped(OrderedDict):
    """An object that was pickled beside the tensors; its contents are left out, except for the items of a mapping."""


class OtherTensor:
    """A tensor that is not plain memory but sparse, quantized or nested."""

    def __init__(self, kind: str):
        self.kind = kind


class ScriptObject:
    """An object of a class that a TorchScript archive defines: the name of its class and its attributes."""

    def __init__(self, kind: str):
        self.kind = kind
        self.attributes: Any = {}


def read_pickle(file: Any, storage: Storage, source: str) -> Any:
    """Read the pickle that begins at the position of `file`, and leave the position after it.

    Args:
        file: binary file with `read`, `readline` and `tell`.
        storage: function of data type, key and number of elements that returns the memory of a tensor, as a tensor
            `[elements]`.
        source: name of the file for errors.

    Raises:
        CheckpointError: a pickle that asks for something that could run code.
        ValueError, IndexError, KeyError, TypeError, AttributeError: a damaged pickle.
    """
    machine = _Machine(storage, source)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count > INSTRUCTIONS:
            raise ValueError(f"more than {INSTRUCTIONS:,} instructions")
        if instruction.name == "STOP":
            return machine.stack.pop()
        act = _ACTIONS.get(instruction.name)
        if act is None:
            raise ValueError(f"instruction {instruction.name}")
        act(machine, argument)
    raise ValueError("no end")


class _Machine:
    """Stack, marks and memo of a pickle that is being read."""

    def __init__(self, storage: Storage, source: str):
        self.storage, self.source = storage, source
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    # Stack

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        """Return what lies above the last mark, which is removed."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("nothing on the stack")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def put(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    # Containers

    def append(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(_hashable(item) for item in items)
        elif not isinstance(target, Dropped):
            raise ValueError(f"items for a {type(target).__name__}")

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError(f"named items for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    def dictionary(self) -> None:
        items = self.to_mark()
        self.push({})
        self.set_items(items)

    # Objects

    def name(self, name: str) -> None:
        known = (
            name in REBUILT | WRAPPED | _PLAIN.keys()
            or name.startswith("__torch__.")
            or OTHER_TENSOR.match(name)
            or BYSTANDERS.match(name)
        )
        module, _, last = name.rpartition(".")
        if module == "torch" and isinstance(constant := vars(torch).get(last), CONSTANTS):
            self.push(constant)
        elif known or (module in ("torch", "torch.storage") and last in DTYPES):
            self.push(Name(name))
        else:
            raise CheckpointError(f"{self.source}: refused, since it asks for {name[:100]}, which could run code")

    def reduce(self) -> None:
        called, arguments = self.pop(2)
        self.push(self.made(called, arguments))

    def made(self, called: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a call in the pickle stands for."""
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is not a function")
        name = called.name
        if name in REBUILT:
            dtype = arguments[6] if name.endswith("v3") else None
            memory, offset, size, stride = arguments[:4]
            return rebuilt(memory, offset, size, stride, dtype)
        if name in WRAPPED:
            return arguments[0]
        if name == "torch._tensor._rebuild_from_type_v2":
            return self.made(arguments[0], arguments[2])
        if name in _PLAIN:
            self.copied += sum(len(items) for items in arguments if isinstance(items, list | tuple | dict | set))
            if self.copied > INSTRUCTIONS:
                raise ValueError("the same items too many times")
            return _PLAIN[name](*arguments)
        if name.startswith("__torch__."):
            return ScriptObject(name)
        if BYSTANDERS.match(name):
            return Dropped()
        if other := OTHER_TENSOR.match(name):
            return OtherTensor(other[1])
        raise ValueError(f"a call of {name[:100]}")

    def build(self) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if isinstance(target, ScriptObject):
            target.attributes = state
        elif not isinstance(target, Tensor | dict | OtherTensor):  # whose attributes are of no use here
            raise ValueError(f"a state for a {type(target).__name__}")

    def persistent(self) -> None:
        (identity,) = self.pop(1)
        kind, named, key, _, count, *view = identity
        if kind != "storage" or not isinstance(named, Name) or not isinstance(key, str):
            raise ValueError("memory of an unknown kind")
        if not _is_count(count):
            raise ValueError("memory without a size")
        memory = self.storage(DTYPES[named.name.rpartition(".")[2]], key, count)
        if view and view[0] is not None:
            _, offset, size = view[0]
            if not _is_count(offset) or not _is_count(size) or offset + size > len(memory):
                raise ValueError(f"a part outside memory {key}")
            memory = memory[offset : offset + size]
        self.push(memory)


def rebuilt(
    memory: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype | None
) -> Tensor:
    """Return a tensor as torch pickles it: a view of its memory, which has to hold it."""
    if not isinstance(memory, Tensor) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without memory, size and strides")
    if not all(map(_is_count, (offset, *size, *stride))) or len(size) != len(stride) or len(size) > 64:
        raise ValueError("a tensor whose size and strides are not numbers or do not match")
    if dtype is not None:
        memory = memory.view(dtype)
    if 0 in size:
        return memory.new_empty(size)
    last = offset + sum((steps - 1) * step for steps, step in zip(size, stride, strict=True))
    if last >= len(memory):
        raise ValueError(f"a tensor of {math.prod(size):,} elements in memory of {len(memory):,}")
    return memory.as_strided(size, stride, memory.storage_offset() + offset)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _hashable(key: Any) -> Any:
    if isinstance(key, tuple) and all(isinstance(item, KEYS) for item in key):
        return key
    if not isinstance(key, KEYS):
        raise ValueError(f"a {type(key).__name__} as key")
    return key


def _ordered(items: Any = ()) -> OrderedDict:
    pairs = items.items() if isinstance(items, dict) else items
    return OrderedDict((_hashable(key), value) for key, value in pairs)


def _set(items: Any = ()) -> set:
    return {_hashable(item) for item in items}


def _never(*_: Any) -> None:
    raise ValueError("a call of a class that stands for a type")


# Names that a pickle may call, and what a call makes of its arguments.
_PLAIN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "__builtin__.set": _set,
    "_codecs.encode": lambda text, *_: text,  # bytes of an array that is dropped
    "torch.Size": lambda size: tuple(size),
    "torch.serialization._get_layout": lambda layout: layout,
    "torch.device": lambda *arguments: ":".join(str(argument)[:20] for argument in arguments),
    "torch.Tensor": _never,
    "torch._tensor._rebuild_from_type_v2": _never,
    "torch.nn.parameter.Parameter": lambda data, *_: data,
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
    **{f"torch.jit._pickle.build_{kind}list": lambda items: items for kind in ("int", "tensor", "double", "bool")},
}


def _read_only(make: Callable[[_Machine, Any], Any]) -> Callable[[_Machine, Any], None]:
    """Return the action that pushes what `make` returns."""
    return lambda machine, argument: machine.push(make(machine, argument))


def _last(count: int) -> Callable[[_Machine, Any], None]:
    """Return the action that makes a tuple of the last values on the stack."""
    return _read_only(lambda machine, _: machine.pop(count))


def _stack_name(machine: _Machine, _: Any) -> None:
    module, name = machine.pop(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is not text")
    machine.name(f"{module}.{name}")


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(
        (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
            *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        _Machine.push,
    ),
    "NONE": _read_only(lambda machine, _: None),
    "NEWTRUE": _read_only(lambda machine, _: True),
    "NEWFALSE": _read_only(lambda machine, _: False),
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.pop(1) and None,
    "POP_MARK": lambda machine, _: machine.to_mark() and None,
    "DUP": _read_only(lambda machine, _: machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _read_only(lambda machine, place: machine.memo[place])),
    "EMPTY_LIST": _read_only(lambda machine, _: []),
    "EMPTY_TUPLE": _read_only(lambda machine, _: ()),
    "EMPTY_DICT": _read_only(lambda machine, _: {}),
    "EMPTY_SET": _read_only(lambda machine, _: set()),
    "LIST": _read_only(lambda machine, _: machine.to_mark()),
    "TUPLE": _read_only(lambda machine, _: tuple(machine.to_mark())),
    "FROZENSET": _read_only(lambda machine, _: _set(machine.to_mark())),
    "DICT": lambda machine, _: machine.dictionary(),
    **{f"TUPLE{count}": _last(count) for count in (1, 2, 3)},
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")),
    "STACK_GLOBAL": _stack_name,
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
}
