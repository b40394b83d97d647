"""Parts of a tokenizer that are compared with the authors' outputs one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """A part of a tokenizer for which there are golden outputs of its own.

    run: returns the arrays that the part computes, by name, from the tokenizer and from arrays of a golden. All are in
        our axes: batch, channels or codebooks, grid or samples.
    takes: names of the golden's arrays that `run` is given.
    tensors: what the names of the part's tensors begin with; only these have values.
    arguments: names in the manifest's `config` of arguments of the tokenizer's class, by our name, for a golden of a
        smaller network.
    """

    run: Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]]
    takes: tuple[str, ...]
    tensors: tuple[str, ...]
    arguments: Mapping[str, str] = {}
