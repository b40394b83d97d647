"""What a second, a pixel, a frame or a residue costs in signals of 1, 6 and 60 times the usual size.

    python benchmarks/growth.py [NAME ...] [--json FILE]
    python benchmarks/growth.py --markdown [--json FILE]

The usual sizes are ten seconds of audio, an image of 256x256 pixels, 17 frames of 128x128 and 60 residues. Figures are
processor time on one thread, of one call after one that warms up, and the memory that it takes beyond what the process
held; each is of a process of its own. A chain of 60 times the residues is left out: the decoder holds
all pairs of residues.
`window_seconds` is WavTokenizer's option that bounds what its decoder attends to.

`--markdown` measures nothing and prints the table of the JSON file that is there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from processes import ROOT, printed_by  # beside this file

RESULTS = ROOT / "benchmarks" / "results" / "growth.json"
NETWORKS = ("wavtokenizer-nano", "mimi-nano", "speechtokenizer-nano", "wetok-nano", "cosmos-dv-nano", "dplm2-nano")
FACTORS = (1, 6, 60)
WINDOWED = {"wavtokenizer-nano": {"window_seconds": 10.0}}  # options of `decode` that are measured as well
UNITS = {"audio": ("second", 1.0), "image": ("megapixel", 1e6), "video": ("frame", 1.0), "structure": ("residue", 1.0)}


def size_of(spec: Any, factor: int) -> tuple[int, ...] | None:
    """Return a signal's size, by the axes of its modality, at `factor` times the usual one; None: there is none."""
    if spec.modality == "audio":
        return (10 * factor * spec.sample_rate,)
    if spec.modality == "image":
        side = round(256 * math.sqrt(factor) / 16) * 16
        return side, side
    if spec.modality == "video":
        return 17 * factor, 128, 128
    return (60 * factor,) if factor < 60 else None


def measure(name: str, factor: int) -> dict[str, dict[str, float]]:
    """Figures of each direction, in this process."""
    import torch

    import zoo
    from zoo.bench.machine import PeakMemory

    torch.set_num_threads(1)
    zoo.keep_freed_memory()
    tokenizer = zoo.for_inference(zoo.create(name).eval())
    spec = tokenizer.spec
    calls: dict[str, Any] = {}
    size = size_of(spec, factor)
    assert size is not None, "a size that is measured"
    signal = tokenizer.modality.example(spec, 1, size, torch.Generator().manual_seed(0))
    codes = tokenizer.encode(signal)
    calls["encode"] = lambda: tokenizer.encode(signal)
    calls["decode"] = lambda: tokenizer.decode(codes)
    if options := WINDOWED.get(name):
        calls["decode, " + ", ".join(f"{key}={value}" for key, value in options.items())] = lambda: tokenizer.decode(
            codes, **options
        )
    _, scale = UNITS[spec.modality]
    units = tokenizer.modality.amount(size, spec.sample_rate or 1.0) / scale  # of video at one frame a second
    results = {}
    for direction, call in calls.items():
        memory = PeakMemory("cpu")
        with memory.watch():
            call()
        start = time.process_time()
        call()
        seconds = time.process_time() - start
        results[direction] = {"seconds_a_unit": seconds / units, "bytes": memory.bytes}
    return results


def markdown(results: dict[str, Any]) -> str:
    """Return the table that the documentation shows."""
    lines = [
        "| network | direction | ms a unit | 6 times the size | 60 times | MiB at 1, 6 and 60 times |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, sizes in results["networks"].items():
        for direction, first in sizes["1"].items():
            base = first["seconds_a_unit"]
            found = [sizes[str(factor)][direction] if str(factor) in sizes else None for factor in FACTORS]
            growth = ["" if one is None else f"{one['seconds_a_unit'] / base:.2f}" for one in found[1:]]
            memory = ", ".join(f"{one['bytes'] / 2**20:.0f}" for one in found if one is not None)
            unit, _ = UNITS[results["modalities"][name]]
            lines.append(
                f"| `{name}` | {direction} | {1000 * base:.3g} a {unit} | {growth[0]} | {growth[1]} | {memory} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants or aliases (default: those of the docs)")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS, help="file of the figures")
    parser.add_argument("--markdown", action="store_true", help="print the table of FILE and measure nothing")
    parser.add_argument("--measure", type=int, choices=FACTORS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.names[0], arguments.measure)))
        return
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text())))
        return
    if arguments.json == RESULTS and arguments.names:
        parser.error("names need --json, so that the figures of all networks stay")

    import zoo
    from zoo.bench.machine import machine_facts, versions

    names = arguments.names or NETWORKS
    results: dict[str, Any] = {"machine": machine_facts("cpu"), "versions": versions(), "networks": {}}
    results["modalities"] = {name: zoo.info(name).spec.modality for name in names}
    for name in names:
        factors = [factor for factor in FACTORS if size_of(zoo.info(name).spec, factor) is not None]
        results["networks"][name] = {str(factor): printed_by(__file__, name, "--measure", factor) for factor in factors}
        print(name, flush=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
