"""Loading: from a name, folder, file or repository to a network with its weights.

What a name stands for is found before torch is imported, so that a mistyped name is reported at once.
The authors' file is converted once and kept beside the Hub's cache; later loads map the converted file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import registry
from zoo.errors import CheckpointError
from zoo.registry import Variant

if TYPE_CHECKING:
    import torch

    from zoo.tokenizer import Tokenizer

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Tokenizer:
    """Return a working tokenizer, in eval mode.

    Args:
        name: a variant or alias; a folder or a safetensors file that `save_pretrained` wrote; or a Hub repository
            `owner/name` that holds one. Weights of a variant are looked for in the package, on this machine, in our
            converted repository, then in the published files on the Hub, which are converted once.
        weights: a file with a variant's weights: a published checkpoint, or a safetensors file that zoo wrote.
        device: device of the weights.
        dtype: data type of the weights; None: float32.

    Raises:
        UnknownTokenizerError: a name that stands for nothing; the message lists the nearest names.
        WeightsUnavailableError: weights that are not on this machine and cannot be fetched; the message says what to
            do.
        CheckpointError: a file that is truncated, unsafe to read or of another network; nothing is loaded.
        MediaError: the authors' file was fetched, but the converted one cannot be written beside the Hub's cache.
    """
    found = resolve(name) if weights is None else registry.info(str(name))
    from zoo import saved

    if isinstance(found, Path):
        tokenizer = saved.load_saved(found, dtype)
    else:
        tokenizer = saved.load_variant(found, None if weights is None else Path(weights), dtype)
    saved.warn_if_non_commercial(tokenizer.spec)
    return tokenizer.to(device).eval()


def resolve(name: str | Path) -> Variant | Path:
    """Return what `name` stands for: a variant, or the folder or file of a saved tokenizer.

    A name that stands for nothing is reported before anything slow is imported.

    Raises:
        UnknownTokenizerError, CheckpointError.
        WeightsUnavailableError: a Hub repository that cannot be fetched.
    """
    path = None if registry.is_variant(name) else find_saved(name)
    return registry.info(str(name)) if path is None else path


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
    elif not Path(weights).is_file():
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
    path = Path(name)
    if path.exists():
        return path
    if isinstance(name, str) and REPOSITORY.fullmatch(name):
        from zoo.fetching import fetch_saved

        return fetch_saved(name, **options)
    if isinstance(name, Path) or path.name != name or path.suffix == ".safetensors":
        raise CheckpointError(f"{name}: no such file or folder")
    return None


def pull(name: str) -> Path:
    """Fetch the weights of a variant or a repository for later use without a network; published files are converted.

    Args:
        name: variant, alias or Hub repository `owner/name`.

    Returns:
        The file that `load(name)` reads from now on, without the Hub.

    Raises:
        UnknownTokenizerError, WeightsUnavailableError, CheckpointError.
        MediaError: the converted file cannot be written.
    """
    if not registry.is_variant(name) and REPOSITORY.fullmatch(name):
        from zoo.fetching import fetch_saved

        return fetch_saved(name) / "model.safetensors"
    variant = registry.info(name)
    from zoo import saved

    return saved.weights_file(variant, saved.network_of(variant))
