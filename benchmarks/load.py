"""Memory and time of loading weights: ours compared with building the network with storage and copying into it.

    python benchmarks/load.py [NAME ...] [--manifest FILE] [--json FILE]

The published file is a synthetic one in the authors' layout, from the manifest or from the variant's own key list. It
is put where the Hub's client keeps downloads, so that nothing but the public `zoo.load` is measured, offline:

    published  weights=FILE: the authors' file through the key map, mapped
    first      the authors' file in the Hub's cache: converted to safetensors on disk, then loaded
    converted  every later load: the safetensors file, mapped
    copied     the naive way for either file: all of it read, then `load_state_dict` into a network with values

Every measurement is a fresh process and ends when each weight has been read once, so that mapped pages count. Memory
is the kernel's high-water mark (VmHWM), reset after all imports, minus the resident size at that moment; the ratio is
to the size of the file that is loaded. Time is from the call to that end. Files are in the page cache for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from processes import printed_by  # beside this file

DEFAULT = ("wavtokenizer-small-320-24k-4096", "wetok-imagenet-f16")
COMMIT = "0" * 40
WAYS = ("published", "copied published", "first", "converted", "copied converted")
COUNTERPARTS = {"published": "copied published", "first": "copied published", "converted": "copied converted"}


def write_published(name: str, manifest: dict | None, home: Path) -> Path:
    """A synthetic authors' file in the Hub's cache below `home`."""
    import torch

    from zoo import registry
    from zoo.checkpoints import without_storage
    from zoo.parity import synthetic_checkpoint

    variant = registry.info(name)
    if manifest is None:
        with without_storage():
            network = variant.build()
        manifest = {"tensors": {}, "layout": variant.keys.layout}
        for key, tensor in network.state_dict().items():
            entry = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
            if not tensor.is_floating_point():
                entry["value"] = tensor.tolist()
            manifest["tensors"][variant.keys.published_key(key)[0]] = entry
    repository = home / "hub" / f"models--{variant.hub.repo.replace('/', '--')}"
    commit = COMMIT if variant.hub.revision == "main" else variant.hub.revision
    published = repository / "snapshots" / commit / variant.hub.filename
    published.parent.mkdir(parents=True)
    torch.save(synthetic_checkpoint(manifest), published)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return published


def load_by_copying(name: str, path: Path, published: bool):
    """What most code does: every tensor is read, initialised and copied."""
    import torch
    from safetensors.torch import load_file

    from zoo import registry

    variant = registry.info(name)
    tokenizer = variant.build()
    if published:
        checkpoint = torch.load(path, weights_only=True)
        state = variant.keys.convert(checkpoint, tokenizer.state_dict(), str(path))
    else:
        state = load_file(path)
    tokenizer.load_state_dict(state)
    return tokenizer


def measure(name: str, way: str, path: Path) -> dict[str, float]:
    """Seconds and bytes of one load in this process."""
    import zoo
    from zoo import registry
    from zoo.bench.machine import resident

    registry.info(name)  # imports all models, and with them all that loading needs
    ways: dict[str, Callable] = {
        "published": lambda: zoo.load(name, weights=path),
        "first": lambda: zoo.load(name),
        "converted": lambda: zoo.load(name),
        "copied published": lambda: load_by_copying(name, path, published=True),
        "copied converted": lambda: load_by_copying(name, path, published=False),
    }
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    start = time.perf_counter()
    tokenizer = ways[way]()
    for tensor in tokenizer.state_dict().values():
        tensor.sum()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": resident("VmHWM") - before, "file_bytes": path.stat().st_size}


def run(name: str, manifest: Path | None) -> dict[str, dict[str, float]]:
    """All ways of loading one variant, each in a process of its own."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {"HF_HOME": folder, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")}
        in_process = partial(printed_by, __file__, threads=None, environment=environment)
        source = ["--manifest", manifest] if manifest else []
        published = Path(in_process("--write", name, home, *source))
        for way in WAYS:
            converted = next((home / "zoo").glob("*.safetensors"), published)
            path = converted if way.endswith("converted") else published
            results[way] = in_process("--measure", name, way, path)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NAME", help=f"variants; without: {DEFAULT}")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="manifest, as `zoo parity` takes it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.manifest and len(arguments.names) != 1 and not arguments.write:
        parser.error("a manifest is for one variant; name that variant")
    if arguments.write:
        name, home = arguments.write
        manifest = json.loads(arguments.manifest.read_text()) if arguments.manifest else None
        print(json.dumps(str(write_published(name, manifest, Path(home)))))
        return
    if arguments.measure:
        name, way, path = arguments.measure
        print(json.dumps(measure(name, way, Path(path))))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("variant", "load", "file", "peak / file", "seconds", "copied / ours: memory", "time")
    records = {}
    for name in arguments.names:
        records[name] = results = run(name, arguments.manifest)
        for way, result in results.items():
            naive = results.get(COUNTERPARTS.get(way, ""))
            table.add_row(
                name,
                way,
                f"{result['file_bytes'] / 2**20:.0f} MiB",
                f"{result['bytes'] / result['file_bytes']:.2f}",
                f"{result['seconds']:.2f}",
                f"{naive['bytes'] / result['bytes']:.1f}x" if naive else "",
                f"{naive['seconds'] / result['seconds']:.1f}x" if naive else "",
            )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
