"""Tokenizers as ONNX files, which run without zoo and without PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import zoo
from zoo.errors import MediaError, ZooError
from zoo.files import atomic_folder
from zoo.layers import lstm  # noqa: F401 - defines the operator `zoo::lstm`
from zoo.loading import load
from zoo.tokenizer import Tokenizer

ENCODER, DECODER, CONFIG = "encoder.onnx", "decoder.onnx", "config.json"
NEEDED = ("onnx", "onnxscript")
# Sizes of the examples that a tokenizer is traced with. A graph is right for one size alone where that size, or what a
# network leaves of it without the first position, was 1.
BATCH, TOKENS, POSITIONS = 2, 5, 3


class End(NamedTuple):
    """What goes in or comes out of a graph: its name, an example, and the names of the axes that may have any size."""

    name: str
    example: Tensor
    axes: dict[int, str]

    def shape(self) -> list[int | str]:
        return [self.axes.get(axis, size) for axis, size in enumerate(self.example.shape)]


class Encode(nn.Module):
    """`tokenizer.encode` as a module, for `torch.export`: a signal in its public layout to codes.

    Raises:
        InputError: a system whose codes need a codebook of their signal's own.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        tokenizer.check_stands_alone()
        self.tokenizer = tokenizer

    def forward(self, signal: Tensor) -> Tensor:
        return self.tokenizer.encode(signal)


class Decode(nn.Module):
    """`tokenizer.decode` as a module, for `torch.export`: codes to a signal in its public layout, uncropped."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, codes: Tensor) -> Tensor:
        return self.tokenizer.decode(codes)


def export_onnx(tokenizer: Tokenizer | str | Path, out: str | Path) -> Path:
    """Write a tokenizer as ONNX files, which any runtime runs.

        zoo.export_onnx("wavtokenizer-nano", "wavtokenizer-onnx")
        encoder = onnxruntime.InferenceSession("wavtokenizer-onnx/encoder.onnx")
        codes, = encoder.run(None, {"signal": audio})

    `encoder.onnx` turns `signal` into `codes`, `decoder.onnx` turns `codes` into `signal`, in the layouts of
    `Tokenizer.encode` and `decode`, without `lengths`, `size` or other options. The batch may have any size, and so may
    the signal where `spec.variable_size` is true: audio of more than `spec.frame_multiple` code positions, clips of at
    most `spec.chunk_frames` frames. Values are not checked: NaN or codes out of range are not reported. A decoder that
    samples draws its own noise. Long signals are not cut into chunks. Runtimes round in their own ways, so that a code
    may differ where two rows are equally near: 2 of mimi-nano's 5,784 codes of the sounds in `zoo demo`.

    Args:
        tokenizer: a tokenizer, or a name or path as `zoo.load` takes it; the files have its data type.
        out: folder to make; it does not exist yet, or is empty.

    Returns:
        The folder, with `encoder.onnx`, `decoder.onnx` (unless the tokenizer only encodes) and `config.json`: the spec,
        and the names and shapes of what goes in and comes out.

    Raises:
        ZooError: the packages onnx and onnxscript are not installed, or the network's graph is right for one size
            alone.
        InputError: a system whose codes need a codebook of their signal's own.
        MediaError: the folder has files in it or cannot be written; nothing is left of it then.
        As `zoo.load`.
    """
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise ZooError(f'export_onnx() needs {" and ".join(missing)}: pip install "tokenizer-zoo[export]"')
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load(tokenizer)
    out, was_training = Path(out), tokenizer.training
    given, axes = example(tokenizer), dynamic_axes(tokenizer)
    signal, codes = End("signal", given[0], axes[0]), End("codes", given[1], axes[1])
    tokenizer.eval()
    try:
        _check_is_new(out)
        with atomic_folder(out) as folder:
            _write(Encode(tokenizer), signal, codes, folder / ENCODER)
            if tokenizer.encode_only is None:
                _write(Decode(tokenizer), codes, signal, folder / DECODER)
            shapes = {end.name: end.shape() for end in (signal, codes)}
            configuration = {"zoo": zoo.__version__, "shapes": shapes, "spec": asdict(tokenizer.spec)}
            (folder / CONFIG).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    finally:
        tokenizer.train(was_training)
    return out


def example(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return a signal and codes to trace a tokenizer with: a batch of two in a small size."""
    spec, modality = tokenizer.spec, tokenizer.modality
    size = modality.sizes(spec)[-1]
    signal = modality.example(spec, BATCH, size, torch.Generator().manual_seed(0)).to(tokenizer.device)
    grid = (TOKENS,) if spec.tail_drop else spec.grid(size)
    _, axes = dynamic_axes(tokenizer)
    grid = tuple(max(length, POSITIONS) if axis in axes else length for axis, length in enumerate(grid, start=2))
    codes = torch.zeros(BATCH, len(spec.default_sizes), *grid, dtype=torch.int64, device=tokenizer.device)
    return signal, codes


def dynamic_axes(tokenizer: Tokenizer) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of the axes of a signal and of its codes that may have any size, by their numbers."""
    spec, modality = tokenizer.spec, tokenizer.modality
    signal, codes = {0: "batch"}, {0: "batch"}
    if spec.variable_size:
        signal |= {modality.axis + i: axis for i, axis in enumerate(modality.axes)}
    if spec.variable_size or spec.tail_drop:
        codes |= {2 + i: f"code_{axis}" for i, axis in enumerate(spec.grid_axes)}
    if spec.chunk_frames is not None and spec.code_length(spec.chunk_frames, spec.chunk_frames) == 1:
        codes.pop(2, None)  # a window has one position in time, never another number
    return signal, codes


def _write(module: nn.Module, given: End, returned: End, path: Path) -> None:
    sizes = (dict.fromkeys(given.axes, torch.export.Dim.DYNAMIC),)
    graph = torch.export.export(module, (given.example,), dynamic_shapes=sizes, strict=False)
    node: Any = graph.graph.output_node().args[0]
    shape = node[0].meta["val"].shape
    # A network that asks for a size is traced for the answer, and no error says that the graph is right for it alone.
    fixed = {axis: shape[index] for index, axis in returned.axes.items() if isinstance(shape[index], int)}
    most = max(0, len(returned.axes) - len(given.axes))  # some signals have axes that their codes do not have
    if len(fixed) > most:
        raise ZooError(
            f"this network cannot be exported: its graph gives {fixed} of {returned.name} for any {given.name}"
        )
    from onnxscript.function_libs.torch_lib.ops.core import aten_lstm

    # Not optimised: the optimiser takes a small constant for 0, and drops what keeps a square root away from it.
    program = torch.onnx.export(
        graph,
        input_names=[given.name],
        output_names=[returned.name],
        dynamo=True,
        optimize=False,
        verbose=False,
        custom_translation_table={torch.ops.zoo.lstm.default: aten_lstm},  # of the same arguments
    )
    assert program is not None, "with dynamo=True there is one"
    program.save(path)


def _check_is_new(path: Path) -> None:
    """Raise MediaError unless a folder does not exist yet, or is empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MediaError(f"{path}: exists already; choose a new folder")
