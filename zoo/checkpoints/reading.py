"""Files of weights: reading them as data, without ever running code in them, and writing them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.checkpoints.keymap import described
from zoo.checkpoints.torchscript import is_torchscript, read_torchscript
from zoo.errors import CheckpointError

# Objects that training code pickles beside the tensors: arguments, configurations, the state of callbacks.
BYSTANDERS = re.compile(
    r"(argparse|omegaconf|pytorch_lightning|lightning|lightning_fabric|numpy|pathlib|collections|typing|enum)\."
    r"|(builtins|__builtin__)\.(list|dict|tuple|set|int|float|bool|str|object)$"
)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a safetensors file, a pickled checkpoint or a TorchScript archive, mapped where the format allows.

    From a TorchScript archive the tensors are read, and none of its code is run. A pickle may hold tensors, plain
    values and other objects of training (`BYSTANDERS`), which are dropped; one that names anything else is refused
    before any of it runs.

    Raises:
        CheckpointError: no such file, truncated, of another format, or a pickle that could run code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only zip archives, which torch has written since 1.6, can be mapped.
        mapped = zipfile.is_zipfile(path)
        if mapped and is_torchscript(path):
            return read_torchscript(path)
        with torch.serialization.safe_globals(_bystanders(path) if mapped else []):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except CheckpointError:
        raise
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
            raise CheckpointError(f"{path}: refused, since it asks for {named[1]}, which could run code") from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise CheckpointError(f"{path}: truncated or not a checkpoint ({reason})") from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{path}: expected named tensors, found {described(checkpoint)}")
    return checkpoint


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        CheckpointError: no such file, truncated or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
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


class _DroppedMapping:
    """Takes the place of the class of an object that is dropped; its instances are empty mappings."""

    def __new__(cls, *args: Any) -> OrderedDict:  # type: ignore[misc]  # it stands for another class
        return OrderedDict()


class _DroppedArray:
    """Takes the place of a class of NumPy, whose state is not a mapping."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _bystanders(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    return [
        (_DroppedArray if name.startswith("numpy.") else _DroppedMapping, name)
        for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if BYSTANDERS.match(name)
    ]
