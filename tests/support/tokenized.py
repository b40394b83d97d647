"""Folders of small media, and what corpora of them hold; as a program, a run that is killed: NAME IN OUT SHARDS."""

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import zoo
from zoo import corpus


def write_media(folder: Path, tokenizer: zoo.Tokenizer, count: int) -> Path:
    """Files of a few sizes, some of them equal, in subfolders that share names; `folder` again."""
    modality, spec = tokenizer.modality, tokenizer.spec
    sizes = modality.sizes(spec)
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        signal = modality.example(spec, 1, sizes[number % len(sizes)], generator)[0]
        place = folder / f"part {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"item {number // 2}{modality.signal_suffix}"
        modality.write(file, signal, spec, frame_rate=8.0 if "frames" in modality.axes else None)
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a corpus in Parquet, in the order of its shards."""
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def digest(folder: Path) -> dict[str, str]:
    """A hash of every file that a reader of a corpus sees, by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".zoo" not in path.parts]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "manifest.json"  # which has the time that it took
    }


def kill_after(shards: int) -> Any:
    """A function for `progress` that kills this process after some shards."""

    def progress(now: corpus.Progress) -> None:
        if now.shards >= shards:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


if __name__ == "__main__":
    name, source, out, shards, *workers = sys.argv[1:]
    corpus.tokenize(
        name,
        source,
        out,
        items_per_shard=2,
        workers=int(workers[0]) if workers else 1,
        progress=kill_after(int(shards)),
    )
