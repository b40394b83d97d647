"""Signals, points and results made by hand, and a benchmark's folder written without running one."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from zoo.bench.results import Interval, Item, Point, Results
from zoo.bench.signals import Preprocessing
from zoo.modalities import Signal

METRIC = {
    "image": ("psnr", {"label": "PSNR", "unit": "dB", "digits": 2, "higher_is_better": True, "per_item": True}),
    "audio": ("mel", {"label": "Mel distance", "unit": "", "digits": 3, "higher_is_better": False, "per_item": True}),
    "video": ("psnr", {"label": "PSNR", "unit": "dB", "digits": 2, "higher_is_better": True, "per_item": True}),
    "structure": ("rmsd", {"label": "RMSD", "unit": "Å", "digits": 2, "higher_is_better": False, "per_item": True}),
}
UNIT = {"image": "bits per pixel", "audio": "kbit/s", "video": "kbit/s", "structure": "bits/residue"}


def voice(seconds: float = 2.0, rate: int = 24000, seed: int = 0) -> torch.Tensor:
    """Harmonics of a gliding pitch in syllables, with noise: `[1, samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, None) ** 0.5
    noise = np.random.default_rng(seed).normal(size=len(time)) * 0.02
    return torch.from_numpy((0.2 * syllables * (harmonics + noise)).astype(np.float32))[None]


def make_signal(modality: str, number: int) -> Signal:
    generator = torch.Generator().manual_seed(number)
    if modality == "image":
        across, down = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 56), indexing="ij")
        return Signal(torch.stack([across, down, (across * (number + 2) * 3).sin() / 2 + 0.5]))
    if modality == "audio":
        return Signal((torch.arange(8000) * 0.05 * (number + 1)).sin()[None] * 0.5)
    if modality == "video":
        return Signal(torch.rand(3, 5, 1, 1, generator=generator).expand(-1, -1, 32, 48).contiguous(), 10.0)
    turn = torch.arange(30) * (1.75 + number * 0.01)
    helix = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), torch.arange(30) * 1.5], dim=1)
    return Signal(helix[:, None] + torch.randn(30, 5, 3, generator=generator) * 0.1)


def make_point(method: str, rate: float, values: dict[str, float], *, baseline: bool = True, **fields) -> Point:
    """`values`: of the first metric, by source."""
    known = np.array(list(values.values()))
    spread = 1.96 * known.std() / max(1, len(known) - 1) ** 0.5
    mean = float(known.mean())
    metric = fields.pop("metric", "psnr")
    interval = Interval(value=mean, low=mean - spread, high=mean + spread)
    defaults = {
        "label": f"{method} at {rate:g}",
        "setting": {"quality": rate},
        "identity": f"{method} 1.0; {rate:g}",
        "bytes": 1000 * rate,
        "metrics": {metric: interval},
        "encode_speed": 12.0,
        "decode_speed": 340.0,
        "peak_bytes": 5_000_000,
        "codes": None,
        "note": f"what {method} counts",
        "items": [
            Item(
                source=source,
                bytes=1000 * rate,
                encode_seconds=0.1,
                decode_seconds=0.1,
                metrics={metric: value},
                reconstruction="",
            )
            for source, value in values.items()
        ],
    }
    return Point(method=method, baseline=baseline, rate=rate, **{**defaults, **fields})


def make_results(points: list[Point], modality: str = "image", **fields) -> Results:
    name, what = METRIC[modality]
    defaults = {
        "metrics": {name: what},
        "left_out": {},
        "damaged": {},
        "data": {"name": "set", "files": len(points[0].items), "sha256": "ab" * 32, "preprocessing": {}},
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"python": "3.11", "zoo": "0.1"},
        "seeds": {"bootstrap": 0},
        "comparisons": [],
    }
    return Results(modality=modality, rate_unit=UNIT[modality], points=points, **{**defaults, **fields})


def write_benchmark(folder: Path, modality: str) -> Results:
    """Three files and their reconstructions by one tokenizer at two rates and one codec, as `zoo bench` leaves them."""
    data = folder / "data"
    data.mkdir(parents=True)
    rates = {"sample_rate": 8000, "channels": 1} if modality == "audio" else {}
    preprocessing = Preprocessing(modality=modality, **rates)
    settings = asdict(preprocessing)
    del settings["modality"]
    name = METRIC[modality][0]
    sources = [f"file {number}{preprocessing.kind.lossless_suffix}" for number in range(3)]
    originals = [make_signal(modality, number) for number in range(3)]
    for source, original in zip(sources, originals, strict=True):
        preprocessing.write(data / source, original)
    points = []
    for method, rate, baseline in (
        ("some-tokenizer", 1.0, False),
        ("some-tokenizer", 2.0, False),
        ("Codec", 12.0, True),
    ):
        point = make_point(
            method, rate, dict(zip(sources, (3.0, 1.0, 2.0), strict=True)), baseline=baseline, metric=name
        )
        items = []
        for item, original in zip(point.items, originals, strict=True):
            target = f"cache/{method}-{rate:g}-{item.source}"
            (folder / target).parent.mkdir(exist_ok=True)
            noise = torch.randn(original.values.shape, generator=torch.Generator().manual_seed(0)) * 0.05
            preprocessing.write(folder / target, original._replace(values=original.values + noise))
            items.append(replace(item, reconstruction=target))
        histogram = [[9, 5, 1, 0], [2, 2, 2, 2]]
        codes = {
            "tokens": 12,
            "usage": [0.75, 1.0],
            "perplexity": [2.5, 4.0],
            "entropy_bits": [1.3, 2.0],
            "paid_bits": [2.0, 2.0],
            "histogram": histogram,
        }
        points.append(replace(point, items=items, codes=None if baseline else codes))
    comparison = {"metric": name, "method": "some-tokenizer", "reference": "Codec", "reference_is_baseline": True}
    return make_results(
        points,
        modality,
        data={"name": "data", "files": 3, "sha256": "cd" * 32, "preprocessing": settings},
        left_out={"LPIPS": "its weights are not on this machine", "JPEG XL": "Pillow does not write it"},
        damaged={"broken.file": "cut short"},
        comparisons=[{**comparison, "kind": "bd", "bd_rate": -12.34, "bd_metric": 1.5, "reason": None}],
        variants={"some-tokenizer": {"weights_sha256": "ef" * 32, "codebook_sizes": [4, 4]}},
    )
