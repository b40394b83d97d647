"""Synthetic checkpoints: values for a published layout that depend on key, shape and seed alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from zoo.errors import CheckpointError

# The end of a tensor's name shows how the layer uses it, and so how it is filled.
POSITIVE = ("running_var",)
GAINS = ("weight_g", "gamma", "original0", ".alpha", ".scale")
CODEBOOKS = ("codebook", "embed", "embedding.weight", "embed_avg", "embeddings")


def synthetic_checkpoint(manifest: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
    """Return a stand-in for the published file, with its state dict at the same place.

    Args:
        manifest: `tensors` maps each key to `shape`, `dtype` and, where the architecture fixes them, `value` or
            `mean` and `std`; `layout` lists the keys above the state dict.
        seed: seed of the values; None: the manifest's.
    """
    seed = manifest.get("seed", 0) if seed is None else seed
    checkpoint: dict[str, Any] = {
        key: torch.from_numpy(_synthetic_tensor(key, entry, seed)) for key, entry in manifest["tensors"].items()
    }
    for key in reversed(manifest.get("layout", [])):
        checkpoint = {key: checkpoint}
    return checkpoint


def _synthetic_tensor(key: str, entry: Mapping[str, Any], seed: int) -> np.ndarray:
    shape = tuple(entry["shape"])
    if "value" in entry:
        return np.array(entry["value"], dtype=entry["dtype"]).reshape(shape)
    if not entry["dtype"].startswith(("float", "bfloat")):
        raise CheckpointError(f"{key}: a tensor of {entry['dtype']} needs its value in the manifest")
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    random = np.random.RandomState(int.from_bytes(digest[:4], "little"))
    noise = random.standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)
    if "mean" in entry or "std" in entry:
        mean, std = entry.get("mean", 0.0), entry.get("std", 1.0)
    elif key.endswith(POSITIVE):
        return np.float32(0.5) + np.abs(noise)
    elif key.endswith(GAINS):
        mean, std = 1.0, 0.1
    elif key.endswith(CODEBOOKS):
        mean, std = 0.0, 1.0
    elif len(shape) <= 1:
        mean, std = (1.0, 0.1) if key.endswith("weight") else (0.0, 0.02)
    else:
        noise /= np.float32(math.sqrt(math.prod(shape[1:])))
        return noise
    noise *= np.float32(std)
    noise += np.float32(mean)
    return noise
