"""Refusing what cannot fit into memory before any of it is allocated. Imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import zoo
from zoo.errors import InputError
from zoo.trainers.recipe import Recipe

if sys.platform != "win32":
    import resource

GIB = 2**30
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def usable_memory() -> int:
    """Bytes that this process may use at most: the machine's memory, or the limit of the process or container."""
    if sys.platform == "win32":
        return 2**63
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    process = resource.getrlimit(resource.RLIMIT_AS)[0]
    if process != resource.RLIM_INFINITY:
        limits.append(process)
    if CONTAINER_LIMIT.is_file() and (text := CONTAINER_LIMIT.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def check_fits(size: float, what: str, memory: int | None = None) -> None:
    """Check that `what`, which has `size` bytes, fits into this machine's memory; if not, raise InputError.

    memory: what `usable_memory` returned, for many checks in a row; None: it is called.
    """
    memory = usable_memory() if memory is None else memory
    if size > memory:
        raise InputError(f"recipe: {what} takes {size / GIB:.3g} GiB, there are {memory / GIB:.3g} GiB of memory")


def check_batch(recipe: Recipe) -> None:
    """Check that a float32 batch of the recipe fits into this machine's memory; if not, raise InputError."""
    spec = zoo.info(recipe.tokenizer).spec
    values = recipe.data.values(spec.channels, spec.sample_rate)
    sizes = "".join(f", data.{key}={getattr(recipe.data, key)}" for key in recipe.data.SIZES)
    if values < 1:
        raise InputError(f"recipe: expected crops of at least one value, got none{sizes}")
    check_fits(4.0 * recipe.batch_size * values, f"a batch (batch_size={recipe.batch_size}{sizes})")
