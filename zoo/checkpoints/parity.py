"""Parity with the reference implementations: the comparison of our outputs with golden ones.

A manifest says which tensors a published file holds, and `synthetic_checkpoint` fills that layout. A golden holds the
outputs of the authors' code with that checkpoint; ours have to be the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo import checkpoints, registry
from zoo.checkpoints.keymap import KeyMap
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.errors import InputError
from zoo.inference import for_inference
from zoo.modalities.structure import ATOMS
from zoo.parts import Part
from zoo.registry import Variant
from zoo.tokenizer import Tokenizer

Run = Callable[[Tokenizer, Mapping[str, Tensor], Mapping[str, str]], dict[str, Tensor]]


@dataclass(frozen=True)
class ParityReport:
    """The comparison of our outputs with a golden.

    part: part of the tokenizer that the golden is of; None: the whole.
    code_agreement: share of equal codes; None if the part has none. differences: greatest absolute difference for each
        golden tensor; for structures, over the residues that the golden's mask has.
    passed: whether everything is within `tolerance`, which is the manifest's.
    """

    name: str
    part: str | None
    seed: int
    code_agreement: float | None
    differences: dict[str, float]
    tolerance: dict[str, float]

    @property
    def passed(self) -> bool:
        limits = {key.removesuffix("_max_abs"): limit for key, limit in self.tolerance.items()}
        return (self.code_agreement is None or self.code_agreement >= limits["code_agreement"]) and all(
            difference <= limits[array] for array, difference in self.differences.items() if array in limits
        )


def parity(
    name: str,
    manifest: Mapping[str, Any] | str | Path,
    golden: str | Path,
    seed: int | None = None,
    device: str | torch.device = "cpu",
) -> ParityReport:
    """Run a variant on a golden's input, from a synthetic checkpoint converted like the published file.

    If the manifest lists the tensors of one of the tokenizer's `parts`, that part alone has values and is run.

    Args:
        name: name of the variant.
        manifest: the parsed manifest, or the path of its JSON file.
        golden: path of the `.npz` file with `input`, `codes`, `reconstruction` unless the system only encodes, and
            optionally `latent`, `quantized`, `mask` and arrays named like an option of `decode` (`noise`), in the axes
            that the manifest states. With an array `names`, it holds one such group for each name (`NAME.input`, ...).
            The golden of a part holds what that part takes and computes.
        seed: seed of the checkpoint; None: the manifest's.
        device: where the network runs.

    Raises:
        UnknownTokenizerError: no such variant.
        CheckpointError: a manifest whose tensors do not fit the network.
        InputError: a manifest or golden that cannot be read or does not fit, or a variant without a published file.
    """
    if not isinstance(manifest, Mapping):
        manifest = read_manifest(manifest)
    seed = manifest.get("seed", 0) if seed is None else seed
    cases = read_golden(golden)
    variant = registry.info(name)
    if variant.keys is None:
        raise InputError(f"{variant.name} was trained for zoo: there is no published file to compare with")
    checkpoint = synthetic_checkpoint(manifest, seed)
    part, tokenizer = network_with_weights(variant, checkpoint, manifest.get("config", {}))
    for tensor in (*tokenizer.parameters(), *tokenizer.buffers()):
        if not tensor.is_meta:  # as those of the other parts are
            tensor.data = tensor.to(device)
    for_inference(tokenizer.eval())
    run = run_network if part is None else partial(run_part, tokenizer.parts[part])
    agreements: list[float] = []
    differences: dict[str, float] = {}
    for case in cases:
        expected = {key: array.to(device) for key, array in case.items()}
        agreement, found = compare(tokenizer, expected, manifest["axes"], run)
        agreements += [] if agreement is None else [agreement]
        differences = {key: max(value, differences.get(key, 0.0)) for key, value in found.items()}
    return ParityReport(
        name=variant.name,
        part=part,
        seed=seed,
        code_agreement=min(agreements, default=None),
        differences=differences,
        tolerance={key: value for key, value in manifest["tolerance"].items() if not isinstance(value, str)},
    )


def network_with_weights(
    variant: Variant, checkpoint: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str | None, Tokenizer]:
    """Return the variant's network with the tensors of a checkpoint, and the part that they are of; None: the whole.

    Args:
        config: the manifest's `config`, which has the arguments of a part that is smaller than the published one.
    """
    source = f"synthetic {variant.name}"
    for name, part in variant.builder.parts.items():
        given = {ours: config[published] for ours, published in part.arguments.items() if published in config}
        with checkpoints.without_storage():
            tokenizer = variant.builder(variant.spec, **{**variant.config, **given})
        expected = {key: value for key, value in tokenizer.state_dict().items() if key.startswith(part.tensors)}
        for keys in key_maps(variant):
            if len(expected) == keys.found(checkpoint, expected):
                state = keys.convert(checkpoint, expected, source)
                tokenizer.load_state_dict(state, strict=False, assign=True)
                return name, tokenizer
    with checkpoints.without_storage():
        tokenizer = variant.build()
    expected = tokenizer.state_dict()
    keys = max(key_maps(variant), key=lambda layout: layout.found(checkpoint, expected))
    checkpoints.assign(tokenizer, keys.convert(checkpoint, expected, source))
    return None, tokenizer


def key_maps(variant: Variant) -> list[KeyMap]:
    """Return the key maps of all published files, those of the authors' own first."""
    files = [file for source in variant.sources for file in getattr(source, "files", (source,))]
    return [file.keys for file in files if file.keys is not None]


def compare(
    tokenizer: Tokenizer, expected: Mapping[str, Tensor], axes: Mapping[str, str], run: Run
) -> tuple[float | None, dict[str, float]]:
    """Return the share of equal codes and the greatest difference per array, for one of a golden's cases."""
    ours = run(tokenizer, expected, axes)
    golden = {key: to_ours(expected[key], axes.get(key), tokenizer) for key in ours if key in expected}
    for key, array in golden.items():
        if key not in axes and array.shape == ours[key].movedim(1, -1).shape != ours[key].shape:
            golden[key] = array = array.movedim(-1, 1)  # channels last, which the manifest does not state
        golden[key] = array = side_by_side(array, ours[key].shape)
        if is_atoms(axes.get(key)):  # the reference has only the first few of our five
            ours[key] = ours[key][:, :, : array.shape[2]]
        if array.squeeze().shape != ours[key].squeeze().shape:
            raise InputError(f"golden {key} is {list(array.shape)}, ours is {list(ours[key].shape)}")
        golden[key] = array.reshape(ours[key].shape)
    differences = {key: (golden[key] - ours[key]).abs() for key in golden if key != "codes"}
    if "mask" in expected:
        absent = ~expected["mask"].bool().reshape(len(golden["codes"]), -1)  # [batch, residues]
        for key, difference in differences.items():
            difference.movedim(1 if is_atoms(axes.get(key)) else 2, 1)[absent] = 0
    agreement = float((golden["codes"] == ours["codes"]).float().mean()) if "codes" in golden else None
    return agreement, {key: float(difference.max()) for key, difference in differences.items()}


def read_manifest(path: str | Path) -> dict[str, Any]:
    try:
        manifest = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a manifest ({error})") from None
    if not isinstance(manifest, dict) or not {"tensors", "axes", "tolerance"} <= manifest.keys():
        raise InputError(f"{path}: expected a manifest with tensors, axes and tolerance")
    return manifest


def read_golden(path: str | Path) -> list[dict[str, Tensor]]:
    """Return the cases of a golden: the file's arrays, or one group of them for each of its `names`."""
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # for a damaged archive, NumPy's reader raises errors of many kinds
        raise InputError(f"{path}: not a golden ({error})") from None
    names = arrays.get("names")
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items() if array.dtype.kind in "biuf"}
    return [tensors] if names is None else [_group(tensors, f"{name}.") for name in names.tolist()]


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


@torch.inference_mode()
def run_network(tokenizer: Tokenizer, golden: Mapping[str, Tensor], axes: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the network's outputs for the golden's input, without `preprocess`, in our axes.

    The decoder gets the golden's own codes, so that a code that differs does not change its output.
    """
    if not {"input", "codes"} <= golden.keys():
        raise InputError(f"expected a golden with input and codes, found {', '.join(golden)}")
    if "reconstruction" not in golden and tokenizer.encode_only is None:
        raise InputError("expected a golden with a reconstruction")
    signal = to_ours(golden["input"], axes["input"], tokenizer)
    if is_atoms(axes["input"]):
        signal = _all_atoms(signal, golden.get("mask"))
    latent = tokenizer.to_latent(signal)
    codes = to_ours(golden["codes"], axes["codes"], tokenizer)
    if _drops_unfinished_step(tokenizer, signal, codes):
        latent = latent[:, :, : codes.shape[2]]
    arrays = {
        "latent": latent,
        "codes": tokenizer.quantize(latent, codes.shape[1]),
        "quantized": tokenizer.embed(codes),
    }
    if tokenizer.encode_only is None:
        options = {key: golden[key] for key in tokenizer.decode_options if key in golden}
        arrays["reconstruction"] = tokenizer.from_latent(arrays["quantized"], **options)
    return arrays


@torch.inference_mode()
def run_part(
    part: Part, tokenizer: Tokenizer, golden: Mapping[str, Tensor], axes: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return what a part of the tokenizer computes from the golden's arrays, in our axes."""
    if missing := [key for key in part.takes if key not in golden]:
        raise InputError(f"expected a golden with {', '.join(missing)}, found {', '.join(golden)}")
    return part.run(tokenizer, {key: to_ours(golden[key], axes.get(key), tokenizer) for key in part.takes})


def _drops_unfinished_step(tokenizer: Tokenizer, signal: Tensor, codes: Tensor) -> bool:
    """Return whether the reference has no code for an unfinished last step of the signal, for which ours has one."""
    if not tokenizer.spec.downsample:
        return False
    (size, *_), step = tokenizer.size_of(signal), tokenizer.spec.downsample[0]
    return codes.shape[2] == size // step == tokenizer.spec.code_length(size) - 1


def _all_atoms(coordinates: Tensor, mask: Tensor | None) -> Tensor:
    """Return `[B, residues, atoms, 3]` as the public `[B, residues, 5, 3]`, NaN where the mask has no residue.

    A mask may concern the codes alone: a residue that it leaves out but that has coordinates is kept.
    """
    atoms = coordinates.new_full((*coordinates.shape[:2], len(ATOMS), 3), torch.nan)
    atoms[:, :, : coordinates.shape[2]] = coordinates
    if mask is not None:
        empty = (coordinates == 0).flatten(2).all(dim=2)
        atoms[empty & ~mask.bool().reshape(empty.shape)] = torch.nan
    return atoms


def side_by_side(array: Tensor, shape: torch.Size) -> Tensor:
    """Return `[B, channels, time]` in a `shape` with several of its steps side by side in the channels of one."""
    if array.ndim != 3 or len(shape) != 3 or array.shape[2] <= shape[2] or array.numel() != shape.numel():
        return array
    return rearrange(array, "b c (t s) -> b (s c) t", t=shape[2])


def is_atoms(axes: str | None) -> bool:
    """Return whether these are the axes of coordinates."""
    return axes is not None and "a" in axes.split()


def to_ours(array: Tensor, axes: str | None, tokenizer: Tokenizer) -> Tensor:
    """Return a golden array with our axes: batch, channels or codebooks, grid or signal; atoms are left as they are.

    An axis that the reference leaves out (one chain, one channel, one codebook) is added, and positions in one row are
    put on the grid if only one grid is possible; one vector for the whole signal has none. Other axes
    (entries of a codebook) follow in their order. Without `axes`, the array has ours.
    """
    if axes is None:
        return array
    letters = axes.split()
    if "b" not in letters:
        array, letters = array[None], ["b", *letters]
    if is_atoms(axes):
        return array
    second = next((letter for letter in letters if letter in "qc"), None)
    if second is None:
        array, letters, second = array[..., None], [*letters, "q"], "q"
    others = [letter for letter in letters if letter not in ("b", second)]
    array = array.permute([letters.index(letter) for letter in ("b", second, *others)])
    spec = tokenizer.spec
    if others[:1] == ["t"] and array.shape[2] == 1 and len(others) == len(tokenizer.modality.axes) + 1:
        array, others = array.squeeze(2), others[1:]  # an image in a network for video
    grid = spec.fixed_grid
    if grid and len(others) == 1 + len(spec.grid_axes) - len(grid) and array.shape[-1] == math.prod(grid):
        return array.unflatten(-1, grid)
    on_grid = len(others) in (0, len(tokenizer.modality.axes), len(spec.grid_axes))
    of_frames = others == ["t"] and tokenizer.modality.axes[0] == "frames"  # one vector each
    if set(others) <= set("nthw") and not (on_grid or of_frames):
        raise InputError(f"cannot turn axes {axes!r} into those of {spec.modality}")
    return array
