"""Published layouts to our state dict.

Converting is data: each system has a `KeyMap`, a table of key patterns that one function applies.
"""

from __future__ import annotations

import itertools
import pickle
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer

State = dict[str, Tensor]

# What training code pickles beside the tensors: arguments, configurations, the state of callbacks.
BYSTANDERS = re.compile(
    r"(argparse|omegaconf|pytorch_lightning|lightning|lightning_fabric|numpy|pathlib|collections|typing|enum)\."
    r"|(builtins|__builtin__)\.(list|dict|tuple|set|int|float|bool|str|object)$"
)


class KeyMap:
    """How a published file names the tensors of a system.

    Args:
        rules: `(published, ours)` or `(published, ours, transform)`. A pattern that ends in a dot stands for all
            keys that begin with it, another for the one key; `{i}`, `{j}`, ... stand for numbers. The first rule
            whose `ours` fits decides; a key that none fits has the same name in both. Weights that are normalised
            (`weight_g`, `weight_v`) need no rule.
        layout: the keys that lead from the file's top to the state dict.
        ignore: prefixes of published keys that inference does not need.
        averaged: prefix of an exponential moving average that is stored under the raw keys without their dots.
            Where a module (`encoder`, `decoder`) has one, all of its tensors are taken from it, else the raw ones.
    """

    def __init__(
        self,
        *rules: tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]],
        layout: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        averaged: str | None = None,
    ):
        self.layout, self.ignore, self.averaged = layout, ignore, averaged
        self._rules = [(_pattern(ours), published, *(transform or (None,))) for published, ours, *transform in rules]

    def published_key(self, ours: str) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """The published name of our tensor, and what turns the published value into ours."""
        for pattern, published, transform in self._rules:
            if match := pattern.match(ours):
                return published.format(**match.groupdict()) + ours[match.end() :], transform
        return ours, None

    def convert(self, checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor], source: str) -> State:
        """The published `checkpoint` as a state dict with the keys and shapes of `expected`.

        No value is copied. `source` names the file in the CheckpointError that lists what is missing, left over
        or of another shape.
        """
        state = descend(checkpoint, self.layout, source)
        converted, used, missing, misshapen = {}, set(), [], []
        averaged_modules = self._averaged_modules(state, expected)
        for ours in expected:
            published, transform = self.published_key(ours)
            published = _weight_norm_key(published, state)
            key = published
            if ours.partition(".")[0] in averaged_modules:
                key = self.averaged + published.replace(".", "")
            if key not in state:
                missing.append(key)
                continue
            used |= {key, published}
            value = state[key]
            try:
                converted[ours] = transform(value) if transform else value
            except Exception as error:
                misshapen.append(f"{key}: {_described(value)}, which cannot be converted ({error})")
                continue
            if _shape(converted[ours]) != expected[ours].shape:
                misshapen.append(f"{key}: {_described(value)}, expected {list(expected[ours].shape)}")
        left_over = [key for key in state if key not in used and not key.startswith(self.ignore)]
        _raise_unless_whole(source, missing, left_over, misshapen)
        return converted

    def _averaged_modules(self, state: Mapping[str, Tensor], expected: Iterable[str]) -> set[str]:
        if self.averaged is None:
            return set()
        return {
            ours.partition(".")[0]
            for ours in expected
            if self.averaged + self.published_key(ours)[0].replace(".", "") in state
        }


def _pattern(ours: str) -> re.Pattern[str]:
    expression = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(ours))
    return re.compile(expression if ours.endswith(".") else expression + "$")


def _weight_norm_key(key: str, state: Mapping[str, Tensor]) -> str:
    """The name that torch's older weight norm gives `key`, where the file was written with it."""
    older = key.replace("parametrizations.weight.original0", "weight_g")
    older = older.replace("parametrizations.weight.original1", "weight_v")
    return older if older in state else key


def descend(checkpoint: Mapping[str, Any], layout: tuple[str, ...], source: str) -> Mapping[str, Tensor]:
    """The state dict inside `checkpoint`, below the keys of `layout`."""
    for key in layout:
        if not isinstance(checkpoint, Mapping) or key not in checkpoint:
            raise CheckpointError(f"{source}: expected the state dict under {'.'.join(layout)}, found no {key!r}")
        checkpoint = checkpoint[key]
    return checkpoint


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """CheckpointError unless `state` has exactly the tensors of `expected`, by name and shape."""
    misshapen = [
        f"{key}: {_described(state[key])}, expected {list(expected[key].shape)}"
        for key in expected
        if key in state and _shape(state[key]) != expected[key].shape
    ]
    missing = [key for key in expected if key not in state]
    _raise_unless_whole(source, missing, [key for key in state if key not in expected], misshapen)


def _raise_unless_whole(source: str, missing: list[str], left_over: list[str], misshapen: list[str]) -> None:
    problems = [
        f"{len(keys)} tensor{'s' * (len(keys) > 1)} {what} ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})"
        for keys, what in ((missing, "missing"), (left_over, "unexpected"), (misshapen, "of another shape"))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{source}: {', '.join(problems)}; nothing was loaded")


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _described(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}, no tensor"


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """A safetensors file, a pickled checkpoint or a TorchScript archive (`.jit`), mapped where the format allows.

    A pickle may hold tensors, plain values and what training leaves beside them (`BYSTANDERS`), which is dropped;
    one that names anything else is refused before any of it runs.

    Raises:
        CheckpointError: no such file, truncated, of another format, or a pickle that could run code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".jit":
            return torch.jit.load(path, map_location="cpu").state_dict()
        # Only zip archives, which torch has written since 1.6, can be mapped.
        mapped = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals(_bystanders(path) if mapped else []):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
            raise CheckpointError(f"{path}: refused, since it asks for {named[1]}, which could run code") from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise CheckpointError(f"{path}: truncated or not a checkpoint ({reason})") from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{path}: expected named tensors, found {_described(checkpoint)}")
    return checkpoint


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text that a safetensors file carries beside its tensors.

    Raises:
        CheckpointError: no such file, truncated or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or no safetensors file ({error})") from None


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, written tensor by tensor straight from where they lie; OSError if it cannot be.

    Tensors that share memory are written each for itself.
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
    """Stands for the class of an object that is dropped, and makes nothing but empty mappings."""

    def __new__(cls, *args: Any) -> OrderedDict:
        return OrderedDict()


class _DroppedArray:
    """Stands for NumPy's, whose state is no mapping."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _bystanders(path: Path) -> list[tuple[type, str]]:
    return [
        (_DroppedArray if name.startswith("numpy.") else _DroppedMapping, name)
        for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if BYSTANDERS.match(name)
    ]


@contextmanager
def without_storage() -> Iterator[None]:
    """Networks built inside, by this thread, have parameters without memory or initialisation, for `assign` to set.

    Buffers are real, so that those computed once and not saved (windows, positions) have their values.
    """
    builder = threading.get_ident()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != builder or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)
    try:
        with _WithoutSymPy():
            yield
    finally:
        handle.remove()


class _WithoutSymPy(TorchFunctionMode):
    """Answers for tensors without storage what initialisation asks and torch would import SymPy for, for seconds."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.erfinv_, Tensor.clamp_) and args[0].is_meta:  # trunc_normal_
            return args[0]
        if func is torch.norm_except_dim and args[0].is_meta:  # weight_norm
            weight, _, dim = args
            return weight.new_empty([size if axis == dim else 1 for axis, size in enumerate(weight.shape)])
        return func(*args, **(kwargs or {}))


def assign(tokenizer: Tokenizer, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Make `state`'s tensors the parameters and buffers of a tokenizer that was built without storage.

    Args:
        tokenizer: built inside `without_storage` or on the meta device.
        state: all of its tensors, by name; those of `dtype` are taken as they are, mapped ones stay mapped.
        dtype: of floating tensors; None: float32.

    Raises:
        CheckpointError: a tensor of the network that is in no state dict and has no value either.
    """
    dtype = dtype or torch.float32
    tokenizer.load_state_dict(
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}, assign=True
    )
    tensors = itertools.chain(tokenizer.named_parameters(), tokenizer.named_buffers())
    if empty := [key for key, tensor in tensors if tensor.is_meta]:
        raise CheckpointError(
            f"{tokenizer.spec.name}: no checkpoint sets {', '.join(empty)}; a buffer that is not saved must not be "
            "computed from a parameter"
        )
