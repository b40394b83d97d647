"""Ray Data: a pool of actors that each hold a network, on this machine or on the cluster of RAY_ADDRESS.

The corpus's folder, and files named by local paths, must be the same on all machines.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from zoo.corpus.engines import Named, Outcome, outcome, prepared
from zoo.corpus.work import Plan
from zoo.extras import extra
from zoo.system_memory import ONE_ARENA
from zoo.tokenizer import Tokenizer


def run(plan: Plan, todo: Sequence[Named], workers: int, device: str, network: Tokenizer) -> Iterator[Outcome]:
    del network
    with extra("scale", "engine='ray'"):
        import ray.data
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    needs_gpu = torch.device(device).type == "cuda"
    shards = ray.data.from_items(
        [{"name": name, "shard": pickle.dumps(shard)} for name, shard in todo], override_num_blocks=len(todo)
    )
    outcomes = shards.map(
        Actor,  # type: ignore[arg-type]  # a class is an actor, which Ray's types leave out
        fn_constructor_args=(plan, device),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        runtime_env={"env_vars": ONE_ARENA},
        num_cpus=1,
        num_gpus=1 if needs_gpu else 0,
    )
    for row in outcomes.iter_rows():
        yield pickle.loads(row["outcome"])


class Actor:
    """A worker that Ray keeps, and starts again where it was lost."""

    def __init__(self, plan: Plan, device: str):
        self._worker = prepared(plan, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": pickle.dumps(outcome(self._worker, row["name"], pickle.loads(row["shard"])))}
