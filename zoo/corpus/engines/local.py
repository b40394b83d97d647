"""Processes of this machine, one a device; a single worker is this process itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import cycle, islice
from multiprocessing.connection import wait as wait_for_end
from typing import Any

from zoo.corpus.engines import Named, Outcome, devices_of, outcome, prepared
from zoo.corpus.work import Plan, Worker
from zoo.errors import ZooError
from zoo.loading import check_placement
from zoo.tokenizer import Tokenizer

worker: Worker | ZooError  # of a process that `start` has made one


def run(plan: Plan, todo: Sequence[Named], workers: int, device: str, network: Tokenizer) -> Iterator[Outcome]:
    if workers == 1:
        check_placement(device, plan.dtype)
        followers = [*(shard for _, shard in todo[1:]), None]
        with closing(Worker(plan, network.to(device))) as here:
            for (name, shard), following in zip(todo, followers, strict=True):
                yield outcome(here, name, shard, following)
        return
    del network
    left = dict(todo)
    while left:
        before = len(left)
        for one in run_pool(plan, list(left.items()), min(workers, before), device):
            del left[one.name]
            yield one
        if len(left) == before:
            raise ZooError(
                f"processes ended before they finished any of {before} shards. Were they killed for want of memory, "
                "fewer workers or a smaller max_batch need less, and the same command goes on. A script that calls "
                "this with several workers does so under `if __name__ == '__main__':`, since they import it"
            )


def run_pool(plan: Plan, todo: Sequence[Named], workers: int, device: str) -> Iterator[Outcome]:
    """Yield the outcomes of shards until all are done or a process is killed; the rest of them are then lost."""
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for place in islice(cycle(devices_of(device)), workers):  # of several GPUs each worker has the next one
        devices.put(place)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, start, (plan, devices)) as pool:
        queue, running = deque(todo), set[Future[Outcome]]()
        try:
            while queue or running:
                while queue and len(running) < workers + 1:
                    running.add(pool.submit(work, *queue.popleft()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            return
        except BaseException:  # Ctrl-C, or nobody wants the rest: what the processes have begun is not waited for
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def start(plan: Plan, devices: Any) -> None:
    """Make this process a worker, which ends when the process that started it does."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker = prepared(plan, devices.get())


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_end([parent.sentinel])
    os._exit(1)


def work(name: str, shard: Any) -> Outcome:
    return outcome(worker, name, shard)
