"""Where shards are worked on: processes of this machine, or a cluster of Ray's.

An engine is a function `(plan, todo, workers, device, network)` that yields an `Outcome` for each of the shards `todo`,
which have names, in any order. `network` is the tokenizer on the CPU, for a worker in this process; others let it go
and load their own.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import torch

from zoo.corpus.records import Record
from zoo.corpus.work import Plan, Worker, load
from zoo.errors import InputError, ZooError, as_zoo_error
from zoo.sources.items import Shard
from zoo.tokenizer import Tokenizer

NAMES = ("local", "ray")


class Outcome(NamedTuple):
    """What became of a shard: its record, or an error. name: the beginning of its files' names."""

    name: str
    shard: str
    record: Record | None = None
    error: ZooError | None = None


Named = tuple[str, Shard]
Engine = Callable[[Plan, Sequence[Named], int, str, Tokenizer], Iterator[Outcome]]


def get(name: str) -> Engine:
    """Return the engine called `name`; InputError for any other name."""
    if name not in NAMES:
        raise InputError(f"expected an engine among {', '.join(NAMES)}, got {name!r}")
    engine: Engine = import_module(f"zoo.corpus.engines.{name}").run
    return engine


def devices_of(device: str) -> list[str]:
    """Return the devices of this machine that `device` stands for: of "cuda" all GPUs, else itself.

    Raises:
        InputError: no name of a device.
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {reprlib.repr(device)} cannot be used: {str(error).partition(chr(10))[0]}") from error
    if place.type == "cpu" or place.index is not None:
        return [device]
    return [f"{place.type}:{index}" for index in range(torch.get_device_module(place.type).device_count())] or [device]


def prepared(plan: Plan, device: str) -> Worker | ZooError:
    """Return a worker, or why there is none, which is then the outcome of every shard that comes to it."""
    try:
        return Worker(plan, load(plan, device))
    except Exception as error:
        return as_zoo_error(error)


def outcome(worker: Worker | ZooError, name: str, shard: Shard, following: Shard | None = None) -> Outcome:
    """Work on a shard, as `Worker` does; its error is the outcome, so that it does not stop the others."""
    if isinstance(worker, ZooError):
        return Outcome(name, shard.name, error=worker)
    try:
        return Outcome(name, shard.name, record=worker(name, shard, following))
    except Exception as error:
        return Outcome(name, shard.name, error=as_zoo_error(error))
