"""Speed and memory of `zoo tokenize`: against a plain loop, of two workers against one, of Ray against processes.

    OMP_NUM_THREADS=1 python benchmarks/corpus.py [--only loop|workers|ray|memory] [--rounds N] [--json FILE]

loop: items a second of one worker that reads, encodes and writes Parquet, relative to a loop that encodes batches of
tensors which are in memory already, with the same network. Both take turns; the ratio is the median over rounds, by the
clock and by processor time. By the clock, reading can hide behind the network; by processor time it cannot, so that
this ratio says what reading and writing cost. The aim is 0.9 by the clock.
workers: items a second of two workers relative to one, each with one thread and no thread that reads ahead, and beside
it what the machine allows: the plain loop in two processes at once relative to one. The aim is 1.8 on two free cores.
ray: the same of two actors of Ray Data relative to two processes. The aim is 0.9.
In all of these, ours counts from the first finished shard to the last, so that no start does. Shards have 10 items
where workers are many, so that both end together, and 40 against the plain loop (by default, 16 to 1,000).
memory: peak of a process that tokenizes 1,000 and 10,000 small images.

Images and speech are real files, each another one, so that clips have as many lengths as in a corpus; without
`../shared/data`, copies of the samples that ship with zoo.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import zoo
from zoo import corpus
from zoo.bench.machine import machine_facts
from zoo.files import atomic_path
from zoo.modalities import media_files

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
SAMPLES = ROOT / "zoo" / "demo" / "samples"
CASES = {"wetok-nano": ("images", "image", 400), "wavtokenizer-nano": ("speech", "audio", 120)}
OPTIONS = {"wetok-nano": {"resolution": 256}, "wavtokenizer-nano": {}}  # of `preprocess`


def copies(folder: Path, name: str, count: int) -> Path:
    """Fill a folder with `count` files that are copies of real ones: JPEG for images, FLAC or WAV for speech."""
    kind, modality, _ = CASES[name]
    source = DATA / kind / "train"
    files = media_files(source if source.is_dir() else SAMPLES, modality)
    folder.mkdir(parents=True)
    for number in range(count):
        file = files[number % len(files)]
        shutil.copy(file, folder / f"{number:05}{file.suffix}")
    return folder


def plain_rates(tokenizer: zoo.Tokenizer, batches: list[torch.Tensor]) -> tuple[float, float]:
    """Return items a second, by the clock and by processor time, of a loop over batches in memory."""
    wall, processor = time.perf_counter(), time.process_time()
    for batch in batches:
        tokenizer.encode(batch)
    count = sum(map(len, batches))
    return count / (time.perf_counter() - wall), count / (time.process_time() - processor)


def our_rates(name: str, files: Path, out: Path, items_per_shard: int, **options: Any) -> tuple[float, float]:
    """Return items a second, by the clock and by processor time, from the first finished shard to the last."""
    seen: list[tuple[int, float, float]] = []
    corpus.tokenize(
        name,
        files,
        out,
        items_per_shard=items_per_shard,
        progress=lambda now: seen.append((now.items, now.seconds, time.process_time())),
        **OPTIONS[name],
        **options,
    )
    items, wall, processor = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    return items / wall, items / processor


def batches_of(tokenizer: zoo.Tokenizer, files: list[Path]) -> list[torch.Tensor]:
    """Signals of equal size together, up to the batch size of `zoo tokenize`."""
    groups: dict[torch.Size, list[torch.Tensor]] = {}
    for file in files:
        signal = tokenizer.preprocess(file, **OPTIONS[tokenizer.spec.name])
        groups.setdefault(signal.shape, []).append(signal)
    batches = []
    for shape, signals in groups.items():
        size = max(1, tokenizer.modality.batch_size // shape[2:].numel())
        batches += [torch.cat(signals[start : start + size]) for start in range(0, len(signals), size)]
    return batches


def loop(name: str, rounds: int) -> dict[str, Any]:
    tokenizer, count = zoo.load(name), CASES[name][2]
    ratios: dict[str, list[float]] = {"wall": [], "processor": []}
    with tempfile.TemporaryDirectory() as place:
        files = copies(Path(place) / "in", name, count)
        batches = batches_of(tokenizer, media_files(files, CASES[name][1]))
        plain_rates(tokenizer, batches[:1])
        for number in range(rounds):
            plain = plain_rates(tokenizer, batches)
            ours = our_rates(name, files, Path(place) / f"out-{number}", 40)
            ratios["wall"].append(ours[0] / plain[0])
            ratios["processor"].append(ours[1] / plain[1])
    return {
        "items": count,
        "items_per_second": ours[0],
        **{f"ratio_{key}": median(values) for key, values in ratios.items()},
    }


def against(name: str, rounds: int, ours: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Rates with the options `ours` and `other`, which take turns, and the median of their ratios."""
    rates: dict[str, list[float]] = {"ours": [], "other": []}
    with tempfile.TemporaryDirectory() as place:
        files = copies(Path(place) / "in", name, CASES[name][2])
        for number in range(rounds):
            for key, options in (("other", other), ("ours", ours)):
                out = Path(place) / f"{key}-{number}"
                rates[key].append(our_rates(name, files, out, 10, readers=0, **options)[0])
    ratio = median(a / b for a, b in zip(rates["ours"], rates["other"], strict=True))
    return {"options": [ours, other], "rates": [median(rates["ours"]), median(rates["other"])], "ratio": ratio}


def plain_process(name: str, folder: Path, start: Any, rates: Any) -> None:
    """Put the rate of the plain loop over a folder, begun when all other processes are ready, into a queue."""
    torch.set_num_threads(1)
    zoo.keep_freed_memory()
    tokenizer = zoo.load(name)
    batches = batches_of(tokenizer, media_files(folder, CASES[name][1]))
    plain_rates(tokenizer, batches[:1])
    start.wait()
    rates.put(plain_rates(tokenizer, batches)[0])


def ceiling(name: str, rounds: int) -> float:
    """Items a second of two plain loops at once relative to one alone: the median over rounds."""
    context = multiprocessing.get_context("spawn")
    ratios = []
    with tempfile.TemporaryDirectory() as place:
        folder = copies(Path(place) / "in", name, CASES[name][2])
        for _ in range(rounds):
            totals = []
            for count in (1, 2):
                start, rates = context.Barrier(count), context.Queue()
                arguments = (name, folder, start, rates)
                processes = [context.Process(target=plain_process, args=arguments) for _ in range(count)]
                for process in processes:
                    process.start()
                totals.append(sum(rates.get() for _ in processes))
                for process in processes:
                    process.join()
            ratios.append(totals[1] / totals[0])
    return median(ratios)


def workers(name: str, rounds: int) -> dict[str, Any]:
    return {**against(name, rounds, {"workers": 2}, {"workers": 1}), "two_plain_loops": ceiling(name, rounds)}


MEMORY = """
import resource, sys
from zoo import corpus
corpus.tokenize("wetok-nano", sys.argv[1], sys.argv[2], items_per_shard=100)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory() -> dict[str, Any]:
    """Peak MiB of a process that tokenizes images of 64x64: 1,000 and 10,000 of them."""
    from PIL import Image

    peaks = {}
    for count in (1000, 10_000):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "in"
            folder.mkdir()
            picture = Image.effect_noise((64, 64), 60).convert("RGB")
            for number in range(count):
                picture.save(folder / f"{number:05}.jpg")
            ran = subprocess.run(
                [sys.executable, "-c", MEMORY, str(folder), str(Path(place) / "out")],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            peaks[str(count)] = float(ran.stdout.split()[-1])
    return {"peak_mib": peaks, "ratio": peaks["10000"] / peaks["1000"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("loop", "workers", "ray", "memory"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    zoo.keep_freed_memory()  # of the plain loop as of the workers, which do so themselves
    two = {"workers": 2}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "loop": lambda: {name: loop(name, arguments.rounds) for name in CASES},
        "workers": lambda: {name: workers(name, arguments.rounds) for name in CASES},
        "ray": lambda: {name: against(name, arguments.rounds, {**two, "engine": "ray"}, two) for name in CASES},
        "memory": memory,
    }
    results = {"machine": machine_facts("cpu")}
    for part, measure in parts.items():
        if arguments.only in (None, part):
            results[part] = measure()
            print(part, json.dumps(results[part], indent=2), flush=True)
    if arguments.json:
        with atomic_path(arguments.json, overwrite=True) as temporary:
            temporary.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
