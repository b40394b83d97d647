"""Saved tokenizers: their configuration, and the weights that become a network's.

A saved tokenizer consists of `config.json` (class, arguments and spec), `model.safetensors` (its tensors, with the same
configuration in the metadata, so that this file alone is enough) and `README.md`, the card.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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


# Configurations


class Configured(Protocol):
    """Anything with a configuration, as every tokenizer has."""

    spec: TokenizerSpec

    def arguments(self) -> dict[str, Any]: ...


def configuration(tokenizer: Configured) -> dict[str, Any]:
    """Return all that is needed to build the network again, as `config.json` stores it.

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
    """Return the network that a `configuration` describes, with random weights.

    Raises:
        UnknownTokenizerError: a class that is not known.
        TypeError: arguments that the class does not take, or facts that a spec does not have.
    """
    architecture = registry.architecture(configuration["architecture"])
    return architecture(TokenizerSpec(**as_tuples(configuration["spec"])), **as_tuples(configuration["config"]))


def as_metadata(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as the metadata of a safetensors file."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in configuration.items()}


def _from_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(value) if key in ("spec", "config") else value for key, value in metadata.items()}


def as_tuples(value: Any) -> Any:
    """Return a value from JSON with its lists as tuples."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


# Saved tokenizers


def load_saved(path: Path, dtype: torch.dtype | None, wanted: type | None = None) -> Tokenizer:
    """Return the tokenizer of a saved folder or file, of the class `wanted` or one that derives from it.

    Raises:
        UnknownTokenizerError: a class that is not known.
        CheckpointError: not a saved tokenizer, one of another class, or one with the tensors of another network.
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


def network_of(variant: Variant) -> Tokenizer:
    """Return the variant's network without storage, for `assign` to set."""
    with without_storage():
        return variant.build()


def load_variant(variant: Variant, weights: Path | None, dtype: torch.dtype | None) -> Tokenizer:
    """Return the variant with its own weights, or with those of a file that the user chose."""
    tokenizer = network_of(variant)
    if weights is None:
        state = found_weights(variant, tokenizer)
        tokenizer.card_file = variant.card_file
    else:
        state = local_weights(variant, weights, tokenizer)
    assign(tokenizer, state, dtype)
    return tokenizer


def local_weights(variant: Variant, path: Path, network: Tokenizer) -> Mapping[str, Tensor]:
    """Return the tensors of a file that the user chose: ours as they are, a published one's through its key map."""
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
        best = max(keys, key=lambda layout: layout.found(state, expected), default=None)
        if best is not None and best.found(state, expected):
            return best.convert(state, expected, str(path))
    return check_state(state, expected, str(path))


def found_weights(variant: Variant, network: Tokenizer) -> Mapping[str, Tensor]:
    """Return the variant's own tensors, from a package or the Hub; `network` is the variant's network."""
    path = weights_file(variant, network)
    if variant.weights is None and variant.shipped is not None:
        return local_weights(variant, path, network)
    return check_state(read_checkpoint(path), network.state_dict(), str(path))


def weights_file(variant: Variant, network: Tokenizer) -> Path:
    """Return the file of the variant's weights; files on this machine are preferred to the network."""
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
    """Warn, once for each license and tokenizer, if the weights are not for commercial use."""
    if not spec.allows_commercial_use:
        _warn_once(f"the weights of {spec.name} are under {spec.weights_license}: not for commercial use")


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=5)
