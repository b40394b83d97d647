"""Building networks without storage, and giving them weights without a copy."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer


@contextmanager
def without_storage() -> Iterator[None]:
    """Build networks, in this thread, whose parameters have no memory or initialisation; `assign` sets them.

    Buffers are real, so that those that are computed once and not saved (windows, positions) have their values.
    """
    builder = threading.get_ident()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != builder or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]  # torch takes what it returns
    try:
        with _WithoutSymPy():
            yield
    finally:
        handle.remove()


class _WithoutSymPy(TorchFunctionMode):
    """Computes what initialisation asks of tensors without storage; torch would import SymPy for it, which is slow."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.erfinv_, Tensor.clamp_) and args[0].is_meta:  # trunc_normal_
            return args[0]
        return func(*args, **(kwargs or {}))


def assign(tokenizer: Tokenizer, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Make `state`'s tensors the parameters and buffers of a tokenizer that was built without storage.

    Args:
        tokenizer: built inside `without_storage` or on the meta device.
        state: all of its tensors, by name; those of `dtype` are used as they are, so that mapped ones stay mapped.
        dtype: data type of floating tensors; None: float32.

    Raises:
        CheckpointError: a tensor of the network that `state` does not hold and that has no value.
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
