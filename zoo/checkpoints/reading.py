"""Files of weights: reading them as data, without ever running code in them, and writing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.checkpoints.archives import read_torch_file
from zoo.checkpoints.keymap import described
from zoo.checkpoints.onnx import read_onnx
from zoo.errors import CheckpointError

READERS: dict[str, Callable[[Path], Any]] = {".safetensors": load_file, ".onnx": read_onnx}


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a safetensors file, a pickled checkpoint, a TorchScript archive or an ONNX graph, mapped where possible.

    From a TorchScript archive and an ONNX graph the tensors are read, and nothing of them is run. A pickle may hold
    tensors, plain values and other objects of training, which are dropped; one that names anything else is refused.

    Raises:
        CheckpointError: no such file, truncated, of another format, or a pickle that could run code.
    """
    path = Path(path)
    try:
        _check_is_file(path)
        checkpoint = READERS.get(path.suffix, read_torch_file)(path)
    except CheckpointError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise CheckpointError(f"{path}: truncated or not a checkpoint ({reason})") from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{path}: expected named tensors, found {described(checkpoint)}")
    return checkpoint


def _check_is_file(path: Path) -> None:
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():  # a pipe, for instance, which would be waited for
        raise CheckpointError(f"{path}: expected a file, found a folder or a device")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        CheckpointError: no such file, truncated or of another format.
    """
    _check_is_file(Path(path))
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from None


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, tensor by tensor and without copies; OSError if it cannot be written.

    Tensors that share memory are written separately.
    """
    written, places = {}, set()
    for key, tensor in state.items():
        tensor = tensor.detach().contiguous()
        if (place := (tensor.device, tensor.data_ptr())) in places:
            tensor = tensor.clone()
        places.add(place)
        written[key] = tensor
    try:
        save_file(written, path, {"format": "pt", **metadata})
    except SafetensorError as error:
        raise OSError(str(error)) from None
