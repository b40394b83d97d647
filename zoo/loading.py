"""Loading: from a name, folder, file or repository to a network with its weights.

What a name stands for is found before torch is imported, so that a mistyped name is reported at once.
The authors' file is converted once and kept beside the Hub's cache; later loads map the converted file.
"""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import registry
from zoo.errors import CheckpointError, InputError
from zoo.registry import Variant

if TYPE_CHECKING:
    import torch

    from zoo.tokenizer import Tokenizer

REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
DTYPES = ("float32", "float16", "bfloat16", "float64")


def load(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compile: bool = False,
) -> Tokenizer:
    """Return a working tokenizer, in eval mode.

    Args:
        name: a variant or alias; a folder or a safetensors file that `save_pretrained` wrote; or a Hub repository
            `owner/name` that holds one. Weights of a variant are looked for in the package, on this machine, in our
            converted repository, then in the published files on the Hub, which are converted once.
        weights: a file with a variant's weights: a published checkpoint, or a safetensors file that zoo wrote. Where
            the weights are published in several files, the folder that holds them, laid out as on the Hub.
        device: device of the weights.
        dtype: data type of the weights; None: float32.
        compile: whether encoder and decoder go through `torch.compile`, at their first call and again for the first few
            other sizes. That takes from seconds to minutes each time, and pays for many signals of few sizes. A
            network that computes long signals in parts then computes them whole. Copies, and what is pickled, are not
            compiled.

    Raises:
        UnknownTokenizerError: a name that stands for nothing; the message lists the nearest names.
        WeightsUnavailableError: weights that are not on this machine and cannot be fetched; the message says what to
            do.
        CheckpointError: a file that is truncated, unsafe to read or of another network; nothing is loaded.
        MediaError: the authors' file was fetched, but the converted one cannot be written beside the Hub's cache.
        InputError: a name that is not text or a path, a device that is not there, or a data type that networks do not
            run in; nothing is read or fetched.
    """
    check_placement(device, dtype)
    if weights is not None and not isinstance(weights, str | Path):
        raise InputError(f"expected weights as a path, got {reprlib.repr(weights)}")
    found = resolve(name) if weights is None else registry.info(_checked(name))
    from zoo import inference, saved

    if isinstance(found, Path):
        tokenizer = saved.load_saved(found, dtype)
    else:
        tokenizer = saved.load_variant(found, None if weights is None else Path(weights), dtype)
    saved.warn_if_non_commercial(tokenizer.spec)
    tokenizer = inference.for_inference(tokenizer.to(device).eval())
    if compile:
        inference.compile_networks(tokenizer)
    return tokenizer


def check_placement(device: str | torch.device, dtype: torch.dtype | None) -> None:
    """Raise InputError for a device or data type that weights cannot have; torch is only imported for unusual ones."""
    if isinstance(device, str) and device == "cpu" and dtype is None:
        return
    import torch

    accepted = [getattr(torch, name) for name in DTYPES]
    if dtype is not None and dtype not in accepted:
        raise InputError(f"expected dtype among {', '.join(map(str, accepted))}, got {reprlib.repr(dtype)}")
    if not isinstance(device, str | torch.device):
        raise InputError(f"device {reprlib.repr(device)} cannot be used: expected a name or a torch.device")
    try:
        place = torch.device(device)
        if place.type != "meta":
            torch.empty(0, device=place)
    except Exception as error:  # of whatever library is behind the device
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"device {reprlib.repr(device)} cannot be used: {reason}") from error
    if place.type == "meta":
        raise InputError("device 'meta' cannot be used: it holds no values")


def _checked(name: str | Path) -> str:
    """Return a name or path as text; InputError for anything else."""
    if not isinstance(name, str | Path):
        raise InputError(f"expected a name or a path, got {reprlib.repr(name)}")
    return str(name)


def resolve(name: str | Path) -> Variant | Path:
    """Return what `name` stands for: a variant, or the folder or file of a saved tokenizer.

    A name that stands for nothing is reported before anything slow is imported.

    Raises:
        UnknownTokenizerError: a name that stands for nothing.
        CheckpointError: a path that does not exist, or is not a file or folder.
        WeightsUnavailableError: a Hub repository that cannot be fetched.
    """
    path = None if registry.is_variant(name) else find_saved(name)
    return registry.info(_checked(name)) if path is None else path


def load_into(tokenizer: Tokenizer, name: str, weights: str | Path) -> None:
    """Copy weights into an existing network, all of its tensors or none.

    Args:
        tokenizer: a network of the variant `name`, which may have another config or spec.
        name: the variant.
        weights: a file, as `load(name, weights=...)` takes it, or the name of a variant whose weights fit; those are
            found as `load` finds them.

    Raises:
        WeightsUnavailableError: weights of a variant that cannot be fetched.
        CheckpointError: no such file or variant, or tensors missing, unexpected or of another shape.
    """
    from zoo import saved
    from zoo.checkpoints import check_state

    if registry.is_variant(weights):
        variant = registry.info(str(weights))
        state = saved.found_weights(variant, saved.network_of(variant))
        state = check_state(state, tokenizer.state_dict(), f"the weights of {variant.name} in a {name}")
    elif not os.path.exists(_checked(weights)):
        raise CheckpointError(f"{weights}: no such file, and no variant has that name")
    else:
        variant = registry.info(name)
        state = saved.local_weights(variant, Path(weights), tokenizer)
    tokenizer.load_state_dict(state)
    saved.warn_if_non_commercial(variant.spec)


def find_saved(name: str | Path, **options: Any) -> Path | None:
    """Return the folder or file called `name`, or a repository's folder in the Hub's cache; None for a bare name.

    `options` are those of `zoo.fetching.fetch_saved`.
    """
    path = Path(_checked(name))
    if os.path.exists(path):  # which says no to a name that no file can have
        if not os.path.isdir(path) and not os.path.isfile(path):
            raise CheckpointError(f"{name}: expected a file or a folder, found a device or a pipe")
        return path
    if isinstance(name, str) and REPOSITORY.fullmatch(name):
        from zoo.fetching import fetch_saved

        return fetch_saved(name, **options)
    if isinstance(name, Path) or path.name != name or path.suffix == ".safetensors":
        raise CheckpointError(f"{_short(name)}: no such file or folder")
    return None


def _short(name: str | Path) -> str:
    """Return a path for errors."""
    return str(name) if len(str(name)) <= 300 and str(name).isprintable() else reprlib.repr(str(name))


def pull(name: str) -> Path:
    """Fetch the weights of a variant or a repository for later use without a network; published files are converted.

    Args:
        name: variant, alias or Hub repository `owner/name`.

    Returns:
        The file that `load(name)` reads from now on, without the Hub.

    Raises:
        UnknownTokenizerError: a name that stands for nothing.
        WeightsUnavailableError: weights that cannot be fetched.
        CheckpointError: a file that is damaged or of another network.
        MediaError: the converted file cannot be written.
    """
    if not registry.is_variant(_checked(name)) and REPOSITORY.fullmatch(name):
        from zoo.fetching import fetch_saved

        return fetch_saved(name) / registry.WEIGHTS
    variant = registry.info(name)
    from zoo import saved

    return saved.weights_file(variant, saved.network_of(variant))
