"""Building networks without storage, and giving them weights without a copy."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from zoo.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer

LARGE = 2**22  # elements; no buffer that has to be computed is larger
COMPUTED = 2**29  # bytes that may be computed from other tensors in all; each operation counts as at least 4,096
PARTS = 5_000  # modules and parameters of a network; the largest here has about 1,300
RANGES = {torch.arange, torch.linspace, torch.eye, torch.hann_window}
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full} | RANGES


@contextmanager
def without_storage() -> Iterator[None]:
    """Build networks, in this thread, whose parameters have neither memory nor initial values; `assign` sets them.

    Buffers are real, so that those that are computed once and not saved (windows, positions) have their values; but
    large tensors are never made, so that sizes from a file cannot ask for memory.

    Raises:
        InputError: a network of more than `PARTS` modules and parameters, or that computes more than `COMPUTED`
            bytes of its buffers.
    """
    builder = threading.get_ident()

    parts = itertools.count(1)

    def count_part(*_: Any) -> None:
        if threading.get_ident() == builder and next(parts) > PARTS:
            raise InputError(f"expected a network of at most {PARTS:,} modules and parameters, got more")

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        count_part()
        if threading.get_ident() != builder or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handles = (
        register_module_parameter_registration_hook(to_meta),  # type: ignore[arg-type]  # torch takes what it returns
        register_module_module_registration_hook(count_part),
    )
    try:
        with _Building():
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Building(TorchFunctionMode):
    """Makes large tensors without storage, and limits the bytes that are computed.

    Some operations of initialisation are skipped on tensors without storage, since torch would import SymPy for them,
    which is slow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.computed = 0  # bytes

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in FACTORIES and (kwargs or {}).get("device") is None and _stated(func, args, kwargs or {}) > LARGE:
            kwargs = {**(kwargs or {}), "device": "meta"}
        if func in (Tensor.erfinv_, Tensor.clamp_) and args[0].is_meta:  # trunc_normal_
            return args[0]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not result.is_meta and func not in FACTORIES and not _shares(result, args):
            self.computed += max(result.numel() * result.dtype.itemsize, 4096)
            if self.computed > COMPUTED:
                raise InputError(
                    f"expected a network whose buffers are computed in {COMPUTED:,} bytes, got a larger one"
                )
        return result


def _shares(result: Tensor, args: tuple) -> bool:
    """Return whether the result of a method is a view of the tensor itself, or that tensor."""
    own = args[0] if args else None
    return (
        isinstance(own, Tensor)
        and not own.is_meta
        and own.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
    )


def _stated(func: Callable, args: tuple, kwargs: Mapping[str, Any]) -> float:
    """Return the number of elements that a call of one of `FACTORIES` asks for, or for a range its greatest number."""
    size = kwargs.get("size", args)
    numbers = list(size) if isinstance(size, list | tuple) else [size]
    if len(numbers) == 1 and isinstance(numbers[0], list | tuple):
        numbers = list(numbers[0])
    if func in RANGES:
        numbers += [value for key, value in kwargs.items() if key in ("end", "steps", "window_length", "n", "m")]
        return max((abs(number) for number in numbers if isinstance(number, int | float)), default=0)
    return math.prod(number for number in numbers if isinstance(number, int))


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
