"""Where shards are worked on: processes of this machine, or a cluster of Ray's.

An engine is a function `(plan, todo, workers, device)` that yields an `Outcome` for each of the shards `todo`, which
have names, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

from zoo.corpus.records import Record
from zoo.corpus.work import Plan, Worker
from zoo.errors import InputError, ZooError, as_zoo_error
from zoo.sources.items import Shard

NAMES = ("local", "ray")


class Outcome(NamedTuple):
    """What became of a shard: its record, or an error. name: the beginning of its files' names."""

    name: str
    shard: str
    record: Record | None = None
    error: ZooError | None = None


Named = tuple[str, Shard]
Engine = Callable[[Plan, Sequence[Named], int, str], Iterator[Outcome]]


def get(name: str) -> Engine:
    """Return the engine called `name`; InputError for any other name."""
    if name not in NAMES:
        raise InputError(f"expected an engine among {', '.join(NAMES)}, got {name!r}")
    engine: Engine = import_module(f"zoo.corpus.engines.{name}").run
    return engine


def prepared(plan: Plan, device: str) -> Worker | ZooError:
    """Return a worker, or why there is none, which is then the outcome of every shard that comes to it."""
    try:
        return Worker(plan, device)
    except Exception as error:
        return as_zoo_error(error)


def outcome(worker: Worker | ZooError, name: str, shard: Shard) -> Outcome:
    """Work on a shard; its error is the outcome, so that it does not stop the others."""
    if isinstance(worker, ZooError):
        return Outcome(name, shard.name, error=worker)
    try:
        return Outcome(name, shard.name, record=worker(name, shard))
    except Exception as error:
        return Outcome(name, shard.name, error=as_zoo_error(error))
