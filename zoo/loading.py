"""A name, folder, file or repository to a network with its weights.

A saved tokenizer is `config.json` (class, arguments and spec), `model.safetensors` (its tensors; the same
configuration is in the metadata, so that the file alone says what it is) and `README.md`, the card.
An authors' file is converted once and kept beside the Hub's cache; later loads map the converted one.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import zoo
from zoo import registry
from zoo.checkpoints import assign, check_state, read_checkpoint, read_metadata, without_storage
from zoo.errors import CheckpointError, InputError, WeightsUnavailableError
from zoo.registry import PackageSource, Variant
from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tokenizer import Tokenizer

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
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
        weights: a file to take a variant's weights from: a published checkpoint or a safetensors file of ours.
        device: where the weights go.
        dtype: data type of the weights; None: float32.

    Raises:
        UnknownTokenizerError: a name that stands for nothing; with the nearest ones.
        WeightsUnavailableError: weights that are not on this machine and cannot be fetched; with what to do.
        CheckpointError: a file that is truncated, unsafe to read or not the network's; nothing is loaded.
        MediaError: the authors' file was fetched, but the converted one cannot be written beside the Hub's cache.
    """
    saved = None if weights is not None or registry.is_variant(name) else find_saved(name)
    if saved is not None:
        tokenizer = load_saved(saved, dtype)
    else:
        variant = registry.info(str(name))
        tokenizer = _network(variant)
        if weights is not None:
            state = _local_weights(variant, Path(weights), tokenizer)
        else:
            state = _found_weights(variant, tokenizer)
            tokenizer.card_file = variant.card_file
        assign(tokenizer, state, dtype)
    warn_if_non_commercial(tokenizer.spec)
    return tokenizer.to(device).eval()


def load_into(tokenizer: Tokenizer, name: str, weights: str | Path) -> None:
    """Copy weights into a network that is there already, all of its tensors or none.

    Args:
        tokenizer: of the variant `name`, also with another config or spec.
        weights: a file, as `load(name, weights=...)` takes it, or the name of a variant whose weights fit; those are
            found as `load` finds them.

    Raises:
        WeightsUnavailableError.
        CheckpointError: no such file or variant, or tensors missing, unexpected or of another shape.
    """
    if registry.is_variant(weights):
        variant = registry.info(str(weights))
        state = _found_weights(variant, _network(variant))
        state = check_state(state, tokenizer.state_dict(), f"the weights of {variant.name} in a {name}")
    elif not Path(weights).is_file():
        raise CheckpointError(f"{weights}: no such file, and no variant has that name")
    else:
        variant = registry.info(name)
        state = _local_weights(variant, Path(weights), tokenizer)
    tokenizer.load_state_dict(state)
    warn_if_non_commercial(variant.spec)


def pull(name: str) -> Path:
    """Fetch the weights of a variant or a repository for use without a network; published files are converted.

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

        return fetch_saved(name) / WEIGHTS
    variant = registry.info(name)
    return _weights_file(variant, _network(variant))


# Configurations


def configuration(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return all that it takes to build the network again, as `config.json` holds it.

    Raises:
        CheckpointError: an argument of the architecture that JSON cannot hold.
    """
    arguments = tokenizer.arguments()
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{tokenizer.spec.name}: JSON cannot hold its arguments ({error})") from None
    return {
        "architecture": type(tokenizer).__name__,
        "spec": asdict(tokenizer.spec),
        "config": arguments,
        "zoo": zoo.__version__,
    }


def build(configuration: Mapping[str, Any]) -> Tokenizer:
    """Return the network of a `configuration`, with random weights.

    Raises:
        UnknownTokenizerError: a class that is not known.
        TypeError: arguments or facts that the class does not take.
    """
    architecture = registry.architecture(configuration["architecture"])
    return architecture(TokenizerSpec(**as_tuples(configuration["spec"])), **as_tuples(configuration["config"]))


def as_metadata(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as the metadata of a safetensors file."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in configuration.items()}


def _from_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(value) if key in ("spec", "config") else value for key, value in metadata.items()}


def as_tuples(value: Any) -> Any:
    """Return JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


# Saved tokenizers


def find_saved(name: str | Path, **options: Any) -> Path | None:
    """Return the folder or file that `name` is, or a repository's folder in the Hub's cache; None for a bare name.

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


def load_saved(path: Path, dtype: torch.dtype | None, wanted: type | None = None) -> Tokenizer:
    """Return the tokenizer of a saved folder or file, of the class `wanted` or one that derives from it.

    Raises:
        UnknownTokenizerError: a class that is not known.
        CheckpointError: not a saved tokenizer, of another class, or of tensors that are not the network's.
    """
    saved = _read_configuration(path)
    architecture = registry.architecture(saved["architecture"])
    if wanted is not None and not issubclass(architecture, wanted):
        raise CheckpointError(
            f"{path}: expected a {wanted.__name__}, found a {architecture.__name__}; "
            f"{architecture.__name__}.from_pretrained or zoo.load reads it"
        )
    try:
        with without_storage():
            tokenizer = build(saved)
    except (TypeError, InputError) as error:
        version = saved.get("zoo", "unknown")
        raise CheckpointError(f"{path}: written by zoo {version}, this is {zoo.__version__}: {error}") from None
    weights = path / WEIGHTS if path.is_dir() else path
    state = check_state(read_checkpoint(weights), tokenizer.state_dict(), str(weights))
    assign(tokenizer, state, dtype)
    if path.is_dir() and (path / CARD).is_file():
        tokenizer.card_file = path / CARD
    return tokenizer


def _read_configuration(path: Path) -> dict[str, Any]:
    if path.is_dir():
        try:
            saved = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no {CONFIG}; expected a folder that save_pretrained wrote") from None
        except ValueError as error:
            raise CheckpointError(f"{path / CONFIG}: not JSON ({error})") from None
    else:
        saved = _from_metadata(read_metadata(path))
    if not isinstance(saved, dict) or not {"architecture", "spec", "config"} <= saved.keys():
        raise CheckpointError(
            f"{path}: is not a zoo tokenizer; zoo.load(NAME, weights=...) reads the authors' file of a variant"
        )
    return saved


# Weights of variants


def _network(variant: Variant) -> Tokenizer:
    with without_storage():
        return variant.build()


def _local_weights(variant: Variant, path: Path, network: Tokenizer) -> Mapping[str, Tensor]:
    """The tensors of a file that the user names: ours as they are, a published one through its key map."""
    expected = network.state_dict()
    if path.suffix == ".safetensors" and "zoo" in (metadata := read_metadata(path)):
        state = read_checkpoint(path)
        saved, wanted = _from_metadata(metadata), configuration(network)
        for key in ("architecture", "config"):
            if key in saved and as_tuples(saved[key]) != as_tuples(wanted[key]):
                raise CheckpointError(f"{path}: {key} is {saved[key]}, not {wanted[key]}; nothing was loaded")
    else:
        packaged = [source for source in variant.sources if isinstance(source, PackageSource)]
        state = packaged[0].read(path) if packaged and path.suffix != ".safetensors" else read_checkpoint(path)
        # Each published layout has its keys; the file is in the one of which it has most.
        keys = [source.keys for source in variant.sources if source.keys is not None]
        if keys:
            best = max(keys, key=lambda layout: layout.found(state, expected))
            return best.convert(state, expected, str(path))
    return check_state(state, expected, str(path))


def _found_weights(variant: Variant, network: Tokenizer) -> Mapping[str, Tensor]:
    """The variant's own tensors, from a package or the Hub; `network` is the variant's."""
    path = _weights_file(variant, network)
    if variant.weights is None and variant.shipped is not None:
        return _local_weights(variant, path, network)
    return check_state(read_checkpoint(path), network.state_dict(), str(path))


def _weights_file(variant: Variant, network: Tokenizer) -> Path:
    """The file of the variant's weights; what is on this machine goes before the network."""
    if (shipped := variant.shipped) is not None:
        if not shipped.is_file():
            raise WeightsUnavailableError(f"{variant.name}: the installed packages have no file {shipped}")
        return shipped
    from zoo.fetching import variant_weights

    expected = network.state_dict()

    def fits(path: Path) -> bool:
        try:
            check_state(read_checkpoint(path), expected, str(path))
        except CheckpointError:  # cut short, or by a version of zoo that named tensors otherwise
            return False
        return True

    return variant_weights(variant, expected, as_metadata(configuration(network)), fits)


# Licenses


def warn_if_non_commercial(spec: TokenizerSpec) -> None:
    """Warn, once for each license and tokenizer, where the weights are not for commercial use."""
    if not spec.allows_commercial_use:
        _warn_once(f"the weights of {spec.name} are under {spec.weights_license}: not for commercial use")


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=5)
