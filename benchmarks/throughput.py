"""Speed and memory of encoding and decoding: batch 1 and 8, float32 and bfloat16, eager and compiled.

    python benchmarks/throughput.py NAME [NAME ...] [--device cuda] [--threads N] [--json FILE]

The signal is noise of a usual size: ten seconds of audio, an image of the variant's resolution or 256x256, a window of
video of 256x256, a chain of 256 residues. Weights are random: they do not change what is computed. Compiled means as
with `zoo.load(..., compile=True)`; the first call, in which that happens, is timed by itself. Networks are prepared
(`zoo.for_inference`), and freed memory is kept (`zoo.keep_freed_memory`).

Every measurement is a fresh process. Speed is in signals a second, from the fastest of at least three runs. Memory is
the peak of one encode or decode: on the CPU the kernel's high-water mark (VmHWM) above the resident size before it, on
a GPU the most that PyTorch's allocator had reserved. The ratios are to eager float32 at the same batch size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCHES, DTYPES, MODES = (1, 8), ("float32", "bfloat16"), ("eager", "compiled")
SECONDS_PER_CASE, LEAST_RUNS = 2.0, 3


def noise(tokenizer, batch: int):
    """A batch of random signals of a usual size: 256x256 images, ten seconds, a window of video, 256 residues."""
    import torch

    spec, modality = tokenizer.spec, tokenizer.modality
    height, width = spec.sizes[0] if spec.sizes else (256, 256)
    usual = {"height": height, "width": width, "frames": spec.chunk_frames or 16, "residues": 256}
    usual["samples"] = spec.sample_rate and 10 * spec.sample_rate
    size = tuple(usual[axis] for axis in modality.axes)
    return modality.example(spec, batch, size, torch.Generator().manual_seed(0))


def measure(name: str, batch: int, dtype: str, mode: str, device: str) -> dict[str, dict[str, float]]:
    """Signals a second and peak bytes of each direction, in this process."""
    import torch

    import zoo
    from zoo.inference import compile_networks

    zoo.keep_freed_memory()
    torch.manual_seed(0)
    tokenizer = zoo.create(name).to(device, getattr(torch, dtype)).eval()
    zoo.for_inference(tokenizer)
    signal = noise(tokenizer, batch).to(device)
    codes = tokenizer.encode(signal)
    calls = {"encode": lambda: tokenizer.encode(signal)}
    if tokenizer.encode_only is None:
        calls["decode"] = lambda: tokenizer.decode(codes)
    if mode == "compiled":
        compile_networks(tokenizer)
    return {direction: measure_call(call, batch, device) for direction, call in calls.items()}


def measure_call(call: Callable[[], object], batch: int, device: str) -> dict[str, float]:
    import torch

    from zoo.bench.machine import resident

    def synchronize() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    start = time.perf_counter()
    call()
    synchronize()
    first = time.perf_counter() - start
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
    else:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < SECONDS_PER_CASE:
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    peak = resident("VmHWM") - before if device == "cpu" else torch.cuda.max_memory_reserved()
    return {"per_second": batch / min(times), "bytes": peak, "first_call_seconds": first}


def measure_in_process(name: str, case: tuple[int, str, str], device: str, threads: int) -> dict | None:
    command = [sys.executable, __file__, name, "--device", device, "--measure", *map(str, case)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        print(f"{name} {case}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="variants or aliases")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="number of CPU threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        batch, dtype, mode = arguments.measure
        print(json.dumps(measure(arguments.names[0], int(batch), dtype, mode, arguments.device)))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(
        "variant", "direction", "batch", "dtype", "mode", "first call", "signals/s", "peak", "speed", "memory"
    )
    records = []
    for name in arguments.names:
        results = {
            case: measure_in_process(name, case, arguments.device, arguments.threads)
            for case in product(BATCHES, DTYPES, MODES)
        }
        for (batch, dtype, mode), result in results.items():
            for direction, figures in (result or {}).items():
                records.append({"name": name, "direction": direction, "batch": batch, "dtype": dtype, "mode": mode})
                records[-1] |= figures
                base = (results[batch, "float32", "eager"] or {}).get(direction)
                table.add_row(
                    name,
                    direction,
                    str(batch),
                    dtype,
                    mode,
                    f"{figures['first_call_seconds']:.2f} s",
                    f"{figures['per_second']:.3g}",
                    f"{figures['bytes'] / 2**20:.0f} MiB",
                    f"{figures['per_second'] / base['per_second']:.2f}x" if base else "",
                    f"{figures['bytes'] / base['bytes']:.2f}x" if base and base["bytes"] else "",
                )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
