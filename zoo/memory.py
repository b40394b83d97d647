"""Memory that a network needs for a signal, found without running it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.errors import InputError
from zoo.system_memory import free_bytes, release_freed_memory
from zoo.tracing import values_are_readable

LARGE = 2**24  # elements of a signal that is worth the question: the answer takes a second or two
AT_ONCE = 2**19  # elements of the signals that are computed together
OPERATIONS = 1.5  # what a network takes at most beside its tensors, where it was measured: 1.3 to 1.5 times these
GIB = 2**30


def check_room(function: Callable[[Tensor], Tensor], x: Tensor, scale: int, what: str) -> None:
    """Raise InputError if `function(x)` needs more memory than is free, before the system ends the process.

    Only for large signals on the CPU: a GPU that has no room raises an error itself.

    Args:
        scale: number of elements of the signal for each position of `x` `[B, channels, ...]`.
        what: what is done, for the error.
    """
    if x.device.type != "cpu" or not values_are_readable(x) or scale * x[:, 0].numel() < LARGE:
        return
    free = free_bytes()
    if free is None or (needed := OPERATIONS * peak_bytes(function, x)) <= free:
        return
    release_freed_memory()
    free = free_bytes() or free
    if needed > free:
        grid = " x ".join(map(str, x.shape[2:]))
        raise InputError(
            f"{what} {grid} needs about {needed / GIB:.1f} GiB of memory at once, and {free / GIB:.1f} GiB are free; "
            "make it smaller, or take it in parts"
        )


def in_groups(
    function: Callable[[Tensor], Tensor],
    windows: Sequence[Tensor],
    scale: int,
    options: Mapping[str, Any],
    what: str | None,
) -> list[Tensor]:
    """Return `function` of each window `[B, channels, ...]`, of large items computed a few at a time on the CPU.

    More of those are no faster there, and need more memory. All items of a window are computed together where an option
    may hold something of each.

    Args:
        windows: of equal size, except that the last may be shorter.
        scale, what: as of `check_room`, which is called for a group unless `what` is None.
        options: those of the call.
    """
    few = items_at_once(windows[0], scale, options)
    if what is not None:
        check_room(function, windows[0][:few], scale, what)
    return [
        function(x) if few is None or len(x) <= few else torch.cat([function(group) for group in x.split(few)])
        for x in windows
    ]


def items_at_once(x: Tensor, scale: int, options: Mapping[str, Any]) -> int | None:
    """Return how many items are computed together; None: all."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not all(map(is_number, options.values())):
        return None
    return max(1, AT_ONCE // (scale * x[0, 0].numel()))


def is_number(option: Any) -> bool:
    return option is None or isinstance(option, int | float)


def peak_bytes(function: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Return the most bytes that the tensors of `function(x)` take at once, without computing any of them.

    What a single operation needs for itself is not counted, and neither are weights and `x`.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        like = torch.empty_like(x)
        with _Tensors() as tensors:
            function(like)
    return tensors.peak


class _Tensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as each of them lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
