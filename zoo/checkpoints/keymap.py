"""Key maps: from the layout of a published file to our state dict.

Converting is data: each system has a `KeyMap`, a table of key patterns that one function applies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError

State = dict[str, Tensor]
Layout = tuple[str | tuple[str, ...], ...]

# Data types of weights, which are converted to the network's.
FLOATING = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)

# Names of normalised weights, and those that PyTorch's parametrization has for them.
PARAMETRIZED = {"weight_g": "original0", "weight_v": "original1"}


class KeyMap:
    """The names that a published file has for the tensors of a system.

    Args:
        rules: `(published, ours)` or `(published, ours, transform)`. A pattern that ends in a dot stands for all
            keys that begin with it, any other pattern for one key; `{i}`, `{j}`, ... stand for numbers. The first rule
            whose `ours` fits is used; a key that no rule fits has the same name in both. Where `published` is a tuple
            of names, `transform` makes our tensor of all of theirs. Normalised weights (`weight_g`, `weight_v`) need
            no rule for the names that PyTorch's parametrization gives them.
        layout: the keys that lead from the top of the file to the state dict; of a tuple of keys, the first that is
            there does. A state dict that consists of several has the name of each before its keys, with a dot between.
        ignore: prefixes of published keys that inference does not need, or endings, as `*.filter`.
        averaged: prefix of an exponential moving average that is stored under the raw keys without their dots.
            If a module (`encoder`, `decoder`) has one, all of its tensors are taken from it, otherwise the raw ones.
        only: prefixes of our keys that the file holds, where the others are in another file; (): it holds all.
    """

    def __init__(
        self,
        *rules: tuple[str, str] | tuple[str | tuple[str, ...], str, Callable[..., Tensor]],
        layout: Layout = (),
        ignore: tuple[str, ...] = (),
        averaged: str | None = None,
        only: tuple[str, ...] = (),
    ):
        self.layout, self.averaged, self.only = layout, averaged, only or ("",)
        self._prefixes = tuple(part for part in ignore if not part.startswith("*"))
        self._endings = tuple(part.removeprefix("*") for part in ignore if part.startswith("*"))
        self._rules = [(_pattern(ours), published, *(transform or (None,))) for published, ours, *transform in rules]

    def published_key(self, ours: str) -> tuple[str, Callable[..., Tensor] | None]:
        """Return the published name of our tensor, or the first of them, and the function that makes our value."""
        names, transform = self._published_keys(ours)
        return names[0], transform

    def _published_keys(self, ours: str) -> tuple[tuple[str, ...], Callable[..., Tensor] | None]:
        for pattern, published, transform in self._rules:
            if match := pattern.match(ours):
                names = (published,) if isinstance(published, str) else published
                return tuple(name.format(**match.groupdict()) + ours[match.end() :] for name in names), transform
        return (ours,), None

    def found(self, checkpoint: Mapping[str, Any], expected: Iterable[str]) -> int:
        """Return how many of our keys `expected` the published `checkpoint` has, which distinguishes layouts."""
        for step in self.layout:
            key = _key_of(checkpoint, step)
            checkpoint = {} if key is None else checkpoint[key]
        if not isinstance(checkpoint, Mapping):
            return 0
        checkpoint = flattened(checkpoint)
        return sum(
            all(_weight_norm_key(key, checkpoint) in checkpoint for key in self._published_keys(ours)[0])
            for ours in self.own(expected)
        )

    def own(self, keys: Iterable[str]) -> list[str]:
        """Return those of our keys whose tensors the published file holds."""
        return [key for key in keys if key.startswith(self.only)]

    def convert(self, checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor], source: str) -> State:
        """Return the published `checkpoint` as a state dict with the keys and shapes of `expected`, or of its `own`.

        No value is copied, unless a transform does so.

        Args:
            checkpoint: contents of the published file.
            expected: our tensors by name.
            source: name of the file for errors.

        Raises:
            CheckpointError: tensors that are missing, left over or of another shape or data type, all listed.
        """
        state = flattened(descend(checkpoint, self.layout, source))
        used: set[str] = set()
        converted, missing, misshapen, mistyped = {}, [], [], []
        averaged_modules = self._averaged_modules(state, expected)
        for ours in self.own(expected):
            published, transform = self._published_keys(ours)
            published = tuple(_weight_norm_key(key, state) for key in published)
            keys = published
            if self.averaged is not None and ours.partition(".")[0] in averaged_modules:
                keys = tuple(self.averaged + key.replace(".", "") for key in published)
            if absent := [key for key in keys if key not in state]:
                missing += [key for key in absent if key not in missing]
                continue
            used.update(keys, published)
            values = [state[key] for key in keys]
            what = f"{keys[0]}: {described(values[0])}"
            try:
                converted[ours] = transform(*map(_stored, values)) if transform else values[0]
            except Exception as error:
                misshapen.append(f"{what}, which cannot be converted ({error})")
                continue
            if _shape(converted[ours]) != expected[ours].shape:
                misshapen.append(f"{what}, expected {list(expected[ours].shape)}")
            elif not _same_kind(converted[ours].dtype, expected[ours].dtype):
                mistyped.append(f"{keys[0]}: {converted[ours].dtype}, expected {expected[ours].dtype}")
        left_over = [key for key in map(str, state) if key not in used and not self._is_ignored(key)]
        _raise_unless_whole(source, missing, left_over, misshapen, mistyped)
        return converted

    def _is_ignored(self, key: str) -> bool:
        return key.startswith(self._prefixes) or key.endswith(self._endings)

    def _averaged_modules(self, state: Mapping[str, Tensor], expected: Iterable[str]) -> set[str]:
        if self.averaged is None:
            return set()
        return {
            ours.partition(".")[0]
            for ours in expected
            if all(self.averaged + key.replace(".", "") in state for key in self._published_keys(ours)[0])
        }


def _pattern(ours: str) -> re.Pattern[str]:
    expression = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(ours))
    return re.compile(expression if ours.endswith(".") else expression + "$")


def _weight_norm_key(key: str, state: Mapping[str, Tensor]) -> str:
    """Return the name of `key` in a file written with PyTorch's parametrization, if `state` has that."""
    name = key.rpartition(".")[2]
    if key in state or name not in PARAMETRIZED:
        return key
    parametrized = f"{key.removesuffix(name)}parametrizations.weight.{PARAMETRIZED[name]}"
    return parametrized if parametrized in state else key


def descend(checkpoint: Mapping[str, Any], layout: Layout, source: str) -> Mapping[str, Tensor]:
    """Return the state dict inside `checkpoint`, below the keys of `layout`."""
    steps = [step if isinstance(step, str) else " or ".join(step) for step in layout]
    path = ".".join(steps)
    for step, name in zip(layout, steps, strict=True):
        key = _key_of(checkpoint, step)
        if key is None:
            raise CheckpointError(f"{source}: expected the state dict under {path}, found no {name!r}")
        checkpoint = checkpoint[key]
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{source}: expected named tensors under {path}, found {described(checkpoint)}")
    return checkpoint


def _key_of(checkpoint: Any, step: str | tuple[str, ...]) -> str | None:
    """Return the key of a step of a layout, or the first of several; None: there is none."""
    keys = (step,) if isinstance(step, str) else step
    return next((key for key in keys if isinstance(checkpoint, Mapping) and key in checkpoint), None)


def flattened(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a state dict, and those of state dicts in it, whose names begin with theirs and a dot."""
    flat: dict[str, Any] = {}
    for key, value in state.items():
        flat |= {f"{key}.{inner}": tensor for inner, tensor in value.items()} if _is_state(value) else {key: value}
    return flat


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> State:
    """Return the tensors of a file of ours by their names in `expected`; earlier versions of zoo had other names.

    Raises:
        CheckpointError: `state` does not have exactly the tensors of `expected`, by name, shape and data type.
    """
    return KeyMap().convert(state, expected, source)


def check_weights(
    state: Mapping[str, Any], expected: Mapping[str, Tensor], source: str, keys: KeyMap | None = None
) -> State:
    """Return the tensors of a file that may hold anything, by their names in `expected`.

    Args:
        state: contents of the file. expected, source: as in `KeyMap.convert`.
        keys: key map of a published file; None: the file is one of ours.

    Raises:
        CheckpointError: as `KeyMap.convert`, or values that are NaN or infinite.
    """
    converted = (keys or KeyMap()).convert(state, expected, source)
    check_finite(converted, source)
    return converted


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError if a value of `state` is NaN or infinite; every value is read once."""
    broken = [
        key for key, tensor in state.items() if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor)
    ]
    if broken:
        raise CheckpointError(f"{source}: {_listed(broken, 'with values that are not finite')}; nothing was loaded")


def _is_finite(tensor: Tensor) -> bool:
    # NaN and infinity make a sum so, which is fast; large values may do so as well.
    if tensor.dtype in (torch.float32, torch.float64) and bool(tensor.sum().isfinite()):
        return True
    # The extremes are NaN if a value is. Tensors are taken in parts, since types of 8 bits have no extremes: they are
    # widened.
    for part in tensor.flatten().split(2**22):
        least, greatest = (part if part.dtype.itemsize > 1 else part.float()).aminmax()
        if not bool(least.isfinite() & greatest.isfinite()):
            return False
    return True


def _raise_unless_whole(
    source: str, missing: list[str], left_over: list[str], misshapen: list[str], mistyped: list[str]
) -> None:
    found = {
        "missing": missing,
        "unexpected": left_over,
        "of another shape": misshapen,
        "of another data type": mistyped,
    }
    if any(found.values()):
        problems = ", ".join(_listed(keys, what) for what, keys in found.items() if keys)
        raise CheckpointError(f"{source}: {problems}; nothing was loaded")


def _listed(keys: list[str], what: str) -> str:
    names = ", ".join(key if len(key) <= 200 else f"{key[:200]}…" for key in keys[:3])
    return f"{len(keys)} tensor{'s' * (len(keys) > 1)} {what} ({names}{', …' * (len(keys) > 3)})"


def _same_kind(found: torch.dtype, expected: torch.dtype) -> bool:
    """Whether a tensor's data type may replace another: any floating type may replace any other, else only the same."""
    return found == expected or (found in FLOATING and expected.is_floating_point)


def _stored(value: Tensor) -> Tensor:
    """Return `value`, whose elements are all in memory; a few stored ones can state a tensor of any size."""
    if isinstance(value, Tensor) and value.numel() * value.dtype.itemsize > value.untyped_storage().nbytes():
        raise ValueError("states more elements than it has")
    return value


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def described(value: Any) -> str:
    """Return the shape of a tensor, or the type of any other value, for errors."""
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__} (not a tensor)"
