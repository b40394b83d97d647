"""Parity with the reference implementations: synthetic checkpoints and the comparison with golden outputs.

A manifest says which tensors a published file holds; `synthetic_checkpoint` fills that layout with values that
depend on key, shape and seed alone. What the authors' code made of it is the golden; ours must make the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import checkpoints, registry
from zoo.errors import CheckpointError, InputError
from zoo.tokenizer import SIGNAL_AXES, Tokenizer

# What a layer's maths asks of a tensor decides how it is filled; the endings tell its kind.
POSITIVE = ("running_var",)
GAINS = ("weight_g", "gamma", "original0", ".alpha", ".scale")
CODEBOOKS = ("codebook", "embed", "embedding.weight", "embed_avg", "embeddings")


def synthetic_checkpoint(manifest: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
    """A stand-in for the published file, nested as it nests its state dict.

    Args:
        manifest: `tensors` maps each key to `shape`, `dtype` and, where the architecture fixes them, `value` or
            `mean` and `std`; `layout` lists the keys above the state dict.
        seed: instead of the manifest's.
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


@dataclass(frozen=True)
class ParityReport:
    """Ours against a golden.

    code_agreement: share of equal codes. differences: greatest absolute difference per golden tensor.
    passed: whether all of it is within `tolerance`, the manifest's.
    """

    name: str
    seed: int
    code_agreement: float
    differences: dict[str, float]
    tolerance: dict[str, float]

    @property
    def passed(self) -> bool:
        limits = {key.removesuffix("_max_abs"): limit for key, limit in self.tolerance.items()}
        return self.code_agreement >= limits["code_agreement"] and all(
            difference <= limits[array] for array, difference in self.differences.items() if array in limits
        )


def parity(
    name: str, manifest: Mapping[str, Any] | str | Path, golden: str | Path, seed: int | None = None
) -> ParityReport:
    """Run a variant on a golden's input, from a synthetic checkpoint converted like the published file.

    Args:
        name: the variant.
        manifest: parsed, or the path of its JSON.
        golden: path of the `.npz`: `input`, `codes`, `reconstruction`, optionally `latent`, `quantized` and
            arrays named like an option of `decode` (`noise`), in the axes that the manifest states.
        seed: of the checkpoint, instead of the manifest's.

    Raises:
        UnknownTokenizerError, CheckpointError, InputError.
    """
    if not isinstance(manifest, Mapping):
        manifest = read_manifest(manifest)
    seed = manifest.get("seed", 0) if seed is None else seed
    expected = read_golden(golden)
    variant = registry.info(name)
    if variant.keys is None:
        raise InputError(f"{variant.name} was trained here: there is no published file to compare with")
    with checkpoints.without_storage():
        tokenizer = variant.builder(variant.spec, **variant.config)
    state = variant.keys.convert(
        synthetic_checkpoint(manifest, seed), tokenizer.state_dict(), f"synthetic {variant.name}"
    )
    checkpoints.assign(tokenizer, state)
    ours = run_network(tokenizer.eval(), expected, manifest["axes"])
    codes = to_ours(expected["codes"], manifest["axes"]["codes"], tokenizer)
    if codes.shape != ours["codes"].shape:
        raise InputError(f"golden codes are {list(codes.shape)}, ours are {list(ours['codes'].shape)}")
    return ParityReport(
        name=variant.name,
        seed=seed,
        code_agreement=float((codes == ours["codes"]).float().mean()),
        differences={
            key: float((to_ours(expected[key], manifest["axes"].get(key), tokenizer) - ours[key]).abs().max())
            for key in ("latent", "quantized", "reconstruction")
            if key in expected
        },
        tolerance={key: value for key, value in manifest["tolerance"].items() if not isinstance(value, str)},
    )


def read_manifest(path: str | Path) -> dict[str, Any]:
    try:
        manifest = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no manifest ({error})") from None
    if not isinstance(manifest, dict) or not {"tensors", "axes", "tolerance"} <= manifest.keys():
        raise InputError(f"{path}: expected a manifest with tensors, axes and tolerance")
    return manifest


def read_golden(path: str | Path) -> dict[str, Tensor]:
    try:
        with np.load(path) as arrays:
            golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except Exception as error:  # a damaged archive makes NumPy's reader raise nearly anything
        raise InputError(f"{path}: no golden ({error})") from None
    if not {"input", "codes", "reconstruction"} <= golden.keys():
        raise InputError(f"{path}: expected input, codes and reconstruction, found {', '.join(golden)}")
    return golden


@torch.inference_mode()
def run_network(tokenizer: Tokenizer, golden: Mapping[str, Tensor], axes: Mapping[str, str]) -> dict[str, Tensor]:
    """What the network below `preprocess` makes of the golden's input, in our axes.

    The decoder gets the golden's own codes, so that one differing code does not hide what it does.
    """
    signal = to_ours(golden["input"], axes["input"], tokenizer)
    latent = tokenizer.to_latent(signal)
    codes = tokenizer.quantizer.encode(latent.movedim(1, -1)).movedim(-1, 1)
    quantized = tokenizer.embed(to_ours(golden["codes"], axes["codes"], tokenizer))
    options = {key: golden[key] for key in tokenizer.decode_options if key in golden}
    reconstruction = tokenizer.from_latent(quantized, **options)
    return {"latent": latent, "codes": codes, "quantized": quantized, "reconstruction": reconstruction}


def to_ours(array: Tensor, axes: str | None, tokenizer: Tokenizer) -> Tensor:
    """A golden array with the axes of this project: batch, channels or codebooks, grid or signal.

    An axis that the reference leaves out (one channel, one codebook) is added; None: the axes are ours.
    """
    if axes is None:
        return array
    letters = axes.split()
    second = next((letter for letter in letters if letter in "qc"), None)
    if "b" not in letters:
        array, letters = array[None], ["b", *letters]
    if second is None:
        array, letters, second = array[..., None], [*letters, "q"], "q"
    others = [letter for letter in letters if letter not in ("b", second)]
    if len(others) != len(SIGNAL_AXES[tokenizer.spec.modality]):
        raise InputError(f"cannot turn axes {axes!r} into those of {tokenizer.spec.modality}")
    return array.permute([letters.index(letter) for letter in ("b", second, *others)])
