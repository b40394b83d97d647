"""Processor time of Mimi: zoo's implementation and transformers', in the same process and turn by turn.

    python benchmarks/mimi.py [--seconds 10] [--runs 3] [--json FILE]

Audio is noise and weights are random: they do not change what is computed. Encoding and decoding use eight codebooks.
Each figure is the shortest processor time of several runs on one thread, in milliseconds for each second of audio; the
ratio is theirs / ours: above 1, ours is faster. A stream gets and returns frames of 80 ms one by one; transformers' port
streams the encoder alone, so that its stream is not measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch


def processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(seconds: float, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time a second of audio, for each operation and each way."""
    from transformers import MimiConfig, MimiModel

    import zoo

    ours, theirs = zoo.create("mimi").eval(), MimiModel(MimiConfig()).eval()
    audio = torch.randn(1, 1, int(seconds * 24000), generator=torch.Generator().manual_seed(0)) * 0.1
    codes = ours.encode(audio)

    def stream() -> None:
        with ours.stream() as stream:
            for samples in audio.split(1920, dim=-1):
                stream.decode(stream.encode(samples))

    calls: dict[str, dict[str, Callable[[], object]]] = {
        "encode": {"ours": lambda: ours.encode(audio), "transformers": lambda: theirs.encode(audio, num_quantizers=8)},
        "decode": {"ours": lambda: ours.decode(codes), "transformers": lambda: theirs.decode(codes)},
        "stream both ways": {"ours": stream},
    }
    results = {}
    with torch.inference_mode():
        for operation, ways in calls.items():
            for call in ways.values():
                call()
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(runs):
                for way, call in ways.items():
                    times[way].append(processor_seconds(call))
            results[operation] = {way: 1000 * min(measured) / seconds for way, measured in times.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the audio")
    parser.add_argument("--runs", type=int, default=3, help="runs of each operation and way after the first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.seconds, arguments.runs)
    for operation, ways in results.items():
        ratio = f", ratio {ways['transformers'] / ways['ours']:.2f}" if "transformers" in ways else ""
        print(f"{operation}: {', '.join(f'{way} {value:.0f} ms/s' for way, value in ways.items())}{ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
