"""Signals a second: of one signal and of eight at once, on one thread and on two, plain and compiled.

    python benchmarks/throughput.py [NAME ...] [--json FILE]
    python benchmarks/throughput.py --markdown [--json FILE]

The signal is noise of a usual size: ten seconds of audio, an image of the variant's resolution or 256x256, a window of
video of 256x256, a chain of 256 residues. Weights are random: they do not change what is computed. Networks are
prepared (`zoo.for_inference`), and freed memory is kept (`zoo.keep_freed_memory`). Compiled means as with
`zoo.load(..., compile=True)`; the first call, in which that happens, is timed by itself, with an empty cache.

Every measurement is a process of its own, of which the fastest of at least three runs counts, by the clock. Memory is
the peak of one call beyond what the process held before. `--markdown` measures nothing and prints the table of the
JSON file that is there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from processes import ROOT, printed_by  # beside this file

RESULTS = ROOT / "benchmarks" / "results" / "throughput.json"
NETWORKS = ("wavtokenizer-nano", "mimi-nano", "wetok-nano", "one-d-piece-nano", "fqgan-nano", "dplm2-nano")
SECONDS_PER_CASE, LEAST_RUNS = 2.0, 3


class Case(NamedTuple):
    batch: int
    threads: int
    compiled: bool


CASES = {
    "plain": Case(1, 1, False),
    "batch": Case(8, 1, False),
    "threads": Case(1, 2, False),
    "batch on two threads": Case(8, 2, False),
    "compiled": Case(1, 1, True),
}


def noise(tokenizer: Any, batch: int) -> Any:
    """A batch of random signals of a usual size: 256x256 images, ten seconds, a window of video, 256 residues."""
    import torch

    spec, modality = tokenizer.spec, tokenizer.modality
    height, width = spec.sizes[0] if spec.sizes else (256, 256)
    usual = {"height": height, "width": width, "frames": spec.chunk_frames or 16, "residues": 256}
    usual["samples"] = spec.sample_rate and 10 * spec.sample_rate
    size = tuple(usual[axis] for axis in modality.axes)
    return modality.example(spec, batch, size, torch.Generator().manual_seed(0))


def measure(name: str, case: Case) -> dict[str, dict[str, float]]:
    """Figures of each direction, in this process."""
    import torch

    import zoo
    from zoo.inference import compile_networks

    torch.set_num_threads(case.threads)
    zoo.keep_freed_memory()
    torch.manual_seed(0)
    tokenizer = zoo.for_inference(zoo.create(name).eval())
    signal = noise(tokenizer, case.batch)
    codes = tokenizer.encode(signal)
    calls: dict[str, Callable[[], object]] = {"encode": lambda: tokenizer.encode(signal)}
    if tokenizer.encode_only is None:
        calls["decode"] = lambda: tokenizer.decode(codes)
    if case.compiled:
        compile_networks(tokenizer)
    return {direction: measure_call(call, case.batch) for direction, call in calls.items()}


def measure_call(call: Callable[[], object], batch: int) -> dict[str, float]:
    from zoo.bench.machine import PeakMemory

    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    memory = PeakMemory("cpu")
    with memory.watch():
        call()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < SECONDS_PER_CASE:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"per_second": batch / min(times), "bytes": memory.bytes, "first_call_seconds": first}


def measure_in_process(name: str, case: str) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache}
        found: dict[str, dict[str, float]] = printed_by(
            __file__, name, "--measure", case, threads=CASES[case].threads, environment=environment
        )
    return found


def markdown(results: dict[str, Any]) -> str:
    """Return the table that the documentation shows."""
    lines = [
        "| network | direction | a second | 8 at once | on 2 threads | 8 on 2 threads, to 8 on one | compiled "
        "| first call | MiB, 1 and 8 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, cases in results["networks"].items():
        for direction in cases["plain"]:
            speed = {case: found[direction]["per_second"] for case, found in cases.items()}
            ratios = [speed[case] / speed["plain"] for case in ("batch", "threads")]
            ratios += [speed["batch on two threads"] / speed["batch"], speed["compiled"] / speed["plain"]]
            batch, threads, both, compiled = (f"{ratio:.2f}" for ratio in ratios)
            first = cases["compiled"][direction]["first_call_seconds"]
            sizes = " and ".join(f"{cases[case][direction]['bytes'] / 2**20:.0f}" for case in ("plain", "batch"))
            lines.append(
                f"| `{name}` | {direction} | {speed['plain']:.3g} | {batch} | {threads} | {both} | {compiled} "
                f"| {first:.0f} s | {sizes} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants or aliases (default: those of the docs)")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS, help="file of the figures")
    parser.add_argument("--markdown", action="store_true", help="print the table of FILE and measure nothing")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.names[0], CASES[arguments.measure])))
        return
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text())))
        return
    if arguments.json == RESULTS and arguments.names:
        parser.error("names need --json, so that the figures of all networks stay")

    from zoo.bench.machine import machine_facts, versions

    results: dict[str, Any] = {"machine": machine_facts("cpu"), "versions": versions(), "networks": {}}
    for name in arguments.names or NETWORKS:
        results["networks"][name] = {case: measure_in_process(name, case) for case in CASES}
        print(markdown({"networks": {name: results["networks"][name]}}).partition("\n")[2], flush=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
