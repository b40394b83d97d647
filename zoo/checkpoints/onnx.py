"""ONNX graphs as data: their weights, with names that key maps can use. No node is run.

A file is a protobuf message (https://onnx.ai/onnx/repo-docs/IR.html), of which only nodes and constant tensors are
read here, so that nothing else is needed for it. Exporters leave many weights without a name of their own
(`onnx::MatMul_2536`), but name each node by the module that it comes from.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import CheckpointError

DTYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}  # of TensorProto.data_type
# Numbers of the fields that are read, by message.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_TENSOR = 5
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW, TENSOR_LOCATION = 1, 2, 4, 8, 9, 14

Field = tuple[int, int | memoryview]


def read_onnx(path: Path) -> Mapping[str, Tensor]:
    """Return the floating tensors of more than one element in an ONNX file, mapped where they are aligned.

    Each has its own name and those of its uses: `MODULE/OPERATOR:NUMBER`, as `/blocks.0/attn/query/MatMul:0`, where
    the number counts the weights that operators of this type take in this module, in the order of the graph.

    Raises:
        CheckpointError: weights that lie in another file.
        ValueError: a damaged file.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    graph = [
        field for number, message in fields(memoryview(mapped)) if number == MODEL_GRAPH for field in inside(message)
    ]
    if not graph:
        raise ValueError("no graph of ONNX's")
    nodes = [read_node(inside(message)) for number, message in graph if number == GRAPH_NODE]
    messages = [inside(message) for number, message in graph if number == GRAPH_INITIALIZER]
    tensors = dict(read_tensor(message, "", str(path)) for message in messages)
    for node in nodes:
        tensors |= dict(read_tensor(message, node.output, str(path)) for message in node.constants)
    weights = {name: tensor for name, tensor in tensors.items() if tensor is not None and tensor.numel() > 1}
    uses: dict[str, list[str]] = {}
    for node in nodes:
        taken = uses.setdefault(f"{node.module}/{node.operator}", [])
        taken += [name for name in node.inputs if name in weights and name not in taken]
    named = {f"{use}:{number}": weights[name] for use, names in uses.items() for number, name in enumerate(names)}
    return weights | named


class Node(NamedTuple):
    """An operation. module: path of the module that it comes from. constants: messages of the tensors that it holds."""

    module: str
    operator: str
    inputs: list[str]
    output: str
    constants: list[list[Field]]


def read_node(message: list[Field]) -> Node:
    values: dict[int, list[int | memoryview]] = {}
    for number, value in message:
        values.setdefault(number, []).append(value)
    attributes = [inside(value) for value in values.get(NODE_ATTRIBUTE, [])]
    return Node(
        module=text(values.get(NODE_NAME, [memoryview(b"")])[-1]).rpartition("/")[0],
        operator=text(values.get(NODE_OPERATOR, [memoryview(b"")])[-1]),
        inputs=[text(value) for value in values.get(NODE_INPUT, [])],
        output=text(values.get(NODE_OUTPUT, [memoryview(b"")])[0]),
        constants=[
            inside(value) for attribute in attributes for number, value in attribute if number == ATTRIBUTE_TENSOR
        ],
    )


def read_tensor(message: list[Field], name: str, source: str) -> tuple[str, Tensor | None]:
    """Return the name of a tensor, by default `name`, and the tensor; None for one that is not floating."""
    shape: list[int] = []
    dtype, content = None, memoryview(b"")
    for number, value in message:
        if number == TENSOR_SHAPE:
            shape += [value] if isinstance(value, int) else varints(value)
        elif number == TENSOR_TYPE:
            dtype = DTYPES.get(value) if isinstance(value, int) else None
        elif number == TENSOR_NAME:
            name = text(value) or name
        elif number == TENSOR_LOCATION and value == 1:
            raise CheckpointError(f"{source}: its weights lie in another file, which is not read")
        elif number in (TENSOR_RAW, TENSOR_FLOATS) and isinstance(value, memoryview):
            content = value
    if dtype is None:
        return name, None
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name[:50]!r} has {len(content):,} bytes, expected {shape} elements of {dtype}")
    if not content:
        return name, torch.empty(shape, dtype=dtype)
    memory = torch.frombuffer(content, dtype=torch.uint8)
    if memory.data_ptr() % dtype.itemsize:
        memory = memory.clone()
    return name, memory.view(dtype).view(shape)


# Protobuf


def fields(message: memoryview) -> Iterator[Field]:
    """Yield number and value of each field: an integer, or the bytes of text, numbers or another message."""
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        kind, start = tag & 7, position
        if kind == 0:
            value, position = varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, start = varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        position = start + length
        if position > len(message):
            raise ValueError("a field is cut short")
        yield tag >> 3, message[start:position]


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the integer that begins at `position`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("a number is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number of more than ten bytes")


def varints(message: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(message):
        number, position = varint(message, position)
        numbers.append(number)
    return numbers


def inside(value: int | memoryview) -> list[Field]:
    """Return the fields of a message that is the value of a field."""
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return list(fields(value))


def text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number in place of text")
    return bytes(value).decode()
