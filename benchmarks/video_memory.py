"""Memory of video tokenizers: for one window at 1280 x 720, and for five windows compared with one at 256 x 256.

    python benchmarks/video_memory.py [NAME ...] [--json FILE]

Weights, in float32, clips and codes are random. Every measurement is a fresh process on one thread: the kernel's
high-water mark (VmHWM) for Python, PyTorch, weights, clip, codes and the work itself.

The exit status is 1 if one window at 1280 x 720 takes more than 8 GiB to encode or to decode, or if five windows take
more than 1.1 times as much as one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from processes import printed_by  # beside this file

DEFAULT = ("cosmos-dv-4x8x8",)
LIMIT, RATIO = 8 * 2**30, 1.1


def measure(name: str, operation: str, windows: int, height: int, width: int) -> dict[str, float]:
    """Peak bytes of this process and seconds of the operation."""
    import torch

    import zoo

    torch.manual_seed(0)
    tokenizer = zoo.create(name).eval()
    frames = windows * (tokenizer.spec.chunk_frames or 17)
    if operation == "encode":
        signal = torch.rand(1, tokenizer.spec.channels, frames, height, width)
        run, argument = tokenizer.encode, signal
    else:
        grid = tokenizer.spec.grid((frames, height, width))
        (size,) = set(tokenizer.spec.codebook_sizes)
        run, argument = tokenizer.decode, torch.randint(size, (1, tokenizer.spec.num_codebooks, *grid))
    start = time.perf_counter()
    run(argument)
    return {"seconds": time.perf_counter() - start, "bytes": peak(), "frames": frames}


def peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NAME", help=f"variants; without: {DEFAULT}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, operation, *numbers = arguments.measure
        print(json.dumps(measure(name, operation, *map(int, numbers))))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("variant", "operation", "clip", "peak", "limit", "seconds")
    records, within = [], True

    def row(name: str, operation: str, windows: int, height: int, width: int, limit: float) -> float:
        nonlocal within
        result = printed_by(__file__, "--measure", name, operation, windows, height, width)
        clip = f"{result['frames']} frames, {width} x {height}"
        sizes = (f"{size / 2**30:.2f} GiB" for size in (result["bytes"], limit))
        table.add_row(name, operation, clip, *sizes, f"{result['seconds']:.1f}")
        records.append({"name": name, "operation": operation, "clip": clip, "limit": limit, **result})
        within &= result["bytes"] <= limit
        return result["bytes"]

    for name in arguments.names:
        for operation in ("encode", "decode"):
            row(name, operation, 1, 720, 1280, LIMIT)
            one = row(name, operation, 1, 256, 256, LIMIT)
            row(name, operation, 5, 256, 256, RATIO * one)
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2))
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
