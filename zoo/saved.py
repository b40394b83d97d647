"""Saved tokenizers: their configuration, and the weights that become a network's.

A saved tokenizer consists of `config.json` (class, arguments and spec), `model.safetensors` (its tensors, with the same
configuration in the metadata, so that this file alone is enough) and `README.md`, the card.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

import zoo
from zoo import registry
from zoo.checkpoints import assign, check_state, check_weights, read_checkpoint, read_metadata, without_storage
from zoo.errors import CheckpointError, InputError, UnknownTokenizerError, WeightsUnavailableError, ZooError
from zoo.nesting import deepest
from zoo.registry import CARD, CONFIG, WEIGHTS, FileSource, HubSource, PackageSource, Variant
from zoo.requantization import requantize
from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tokenizer import Tokenizer

CONFIG_BYTES, DEPTH = 2**24, 100  # that a configuration may have; those of tokenizers have a few thousand, 6 deep
SIZE = 2**20  # of anything in a network; a list of as many layers is still made in no time
TRIED = 2**22  # values of a signal that a network is tried out with

# Model types in the `config.json` of repositories for the package transformers, and the classes that load them.
TRANSFORMERS = {
    "encodec": "EnCodec",
    "dac": "DAC",
    "xcodec": "XCodec",
    "higgs_audio_v2_tokenizer": "HiggsAudioV2",
    "xcodec2": "XCodec2",
    "neucodec": "NeuCodec",
}


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
        InputError: keys of the spec or arguments of the class that are missing, unknown or of the wrong type or size.
    """
    _check_parts(configuration)
    architecture = registry.architecture(configuration["architecture"])
    spec, config = as_tuples(configuration["spec"]), as_tuples(configuration["config"])
    name, arguments, replaced = _other_quantizer(config.pop("quantizer", None))
    _check_keys("spec", {**spec, **replaced}, TokenizerSpec)
    _check_keys("config", config, architecture)
    for key, value in {**config, **arguments}.items():
        if any(type(size) is int and size > SIZE for size in (value if isinstance(value, tuple) else (value,))):
            raise InputError(
                f"config of {architecture.__name__}: expected {key} as an integer of at most {SIZE:,}, "
                f"got {reprlib.repr(value)}"
            )
    network = architecture(TokenizerSpec(**{**spec, **replaced}), **config)
    if name is not None:
        requantize(network, name, **arguments)
        if network.spec != TokenizerSpec(**spec):
            raise InputError(f"spec: is not that of a {network.spec.name} with the quantizer {name}")
    if (sizes := network.quantizer.codebook_sizes) != network.spec.codebook_sizes:
        raise InputError(
            f"spec: expected codebook_sizes {reprlib.repr(sizes)} of the quantizer, "
            f"got {reprlib.repr(network.spec.codebook_sizes)}"
        )
    if empty := [key for key, parameter in network.named_parameters() if parameter.numel() == 0]:
        raise InputError(f"config of {architecture.__name__}: gives {empty[0]} no elements; a size is 0")
    return network


def _other_quantizer(stated: Any) -> tuple[str | None, Mapping[str, Any], Mapping[str, Any]]:
    """Return name and arguments of a quantizer that replaces that of a class, and the fields of the spec before."""
    if stated is None:
        return None, {}, {}
    kinds = {"name": str, "arguments": Mapping, "replaces": Mapping}
    if not isinstance(stated, Mapping) or not all(isinstance(stated.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"expected quantizer as its name, arguments and what it replaces, got {reprlib.repr(stated)}")
    return stated["name"], stated["arguments"], stated["replaces"]


def _check_parts(configuration: Mapping[str, Any]) -> None:
    for key, kind in {"architecture": str, "spec": Mapping, "config": Mapping}.items():
        if not isinstance(configuration.get(key), kind):
            expected = "a name" if kind is str else "named values"
            raise InputError(f"expected {key} as {expected}, got {reprlib.repr(configuration.get(key))}")


def _check_keys(part: str, given: Mapping[str, Any], taken_by: type) -> None:
    takes = inspect.signature(taken_by.__init__).parameters  # type: ignore[misc]  # of a class that is known
    parameters = {name: parameter for name, parameter in takes.items() if name not in ("self", "spec")}
    kinds = {parameter.kind for parameter in parameters.values()}
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    missing = [
        name for name in required if name not in given and parameters[name].kind != inspect.Parameter.VAR_KEYWORD
    ]
    unknown = [] if inspect.Parameter.VAR_KEYWORD in kinds else [name for name in given if name not in parameters]
    for keys, what in ((missing, "has no"), (unknown, "has an unknown key")):
        if keys:
            raise InputError(f"{part} of {taken_by.__name__}: {what} {', '.join(map(reprlib.repr, keys[:3]))}")


def as_metadata(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as the metadata of a safetensors file."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in configuration.items()}


def _stated_in(path: Path) -> dict[str, Any]:
    """Return the metadata of a file of weights, with the configuration that `as_metadata` put there."""
    try:
        metadata = read_metadata(path)
        return {key: read_json(value) if key in ("spec", "config") else value for key, value in metadata.items()}
    except ValueError as error:
        raise CheckpointError(f"{path}: metadata that is not JSON ({error})") from None


def read_json(text: str) -> Any:
    """Return the value of a text in JSON; ValueError where it is none, or nested deeper than any configuration."""
    if deepest(text) > DEPTH:
        raise ValueError(f"nested more than {DEPTH} deep")
    return json.loads(text)


def as_tuples(value: Any) -> Any:
    """Return a value from JSON with its lists as tuples."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


# Saved tokenizers


def load_saved(path: Path, dtype: torch.dtype | None, wanted: type | None = None) -> Tokenizer:
    """Return the tokenizer of a saved folder or file, of the class `wanted` or one that derives from it.

    A folder may also be one that `transformers` wrote, for a model type in `TRANSFORMERS`.

    Raises:
        UnknownTokenizerError: a class that is not known.
        CheckpointError: not a saved tokenizer, one of another class, one with the tensors of another network, or one
            whose spec and arguments do not go together.
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
    except UnknownTokenizerError:  # of an autoencoder inside
        raise
    except Exception as error:  # a class may fail with anything where its arguments do not go together
        version = str(saved.get("zoo", "unknown"))[:20]
        written = "of transformers" if "keys" in saved else f"written by zoo {version}, this is {zoo.__version__}"
        reason = error if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
        place = path / CONFIG if path.is_dir() else path
        raise CheckpointError(f"{place}: {written}: {reason}") from error
    weights = path / WEIGHTS if path.is_dir() else path
    if path.is_dir():
        _check_belongs(weights, saved)
    state = check_weights(read_checkpoint(weights), tokenizer.state_dict(), str(weights), saved.get("keys"))
    assign(tokenizer, state, dtype)
    if tokenizer.dtype == torch.float32 and not _is_variant(tokenizer):  # processors lack others in some layers
        _try_out(tokenizer.eval(), path / CONFIG if path.is_dir() else path)
    if path.is_dir() and (path / CARD).is_file():
        tokenizer.card_file = path / CARD
    return tokenizer


def _is_variant(tokenizer: Tokenizer) -> bool:
    """Return whether spec and arguments are those of a registered variant, which go together."""
    if not registry.is_variant(tokenizer.spec.name):
        return False
    variant = registry.info(tokenizer.spec.name)
    if variant.spec != tokenizer.spec or variant.builder is not type(tokenizer):
        return False
    built_with = inspect.signature(variant.builder).bind(variant.spec, **variant.config)
    built_with.apply_defaults()
    return all(built_with.arguments.get(key) == value for key, value in tokenizer.arguments().items())


@torch.no_grad()
def _try_out(tokenizer: Tokenizer, source: Path) -> None:
    """Encode and decode small random signals: spec and arguments may each be right and not go together.

    Raises:
        CheckpointError: signals that are not small, or codes and signals of other sizes than the spec states.
    """
    spec, modality = tokenizer.spec, tokenizer.modality
    for size in modality.sizes(spec):
        steps = spec.downsample or (1,) * len(size)  # a network of one size pads nothing
        padded = (math.ceil(length / step) * step for length, step in zip(size, steps, strict=True))
        if spec.channels * math.prod(padded) > TRIED:
            raise CheckpointError(f"{source}: states a network for signals of at least {size}, too large to try out")
        try:
            with torch.random.fork_rng(devices=[]):  # for decoders that draw
                x = modality.example(spec, 1, size, torch.Generator().manual_seed(0))
                codes, expected = tokenizer.encode(x), (1, len(spec.default_sizes), *spec.grid(size))
                if codes.shape != expected:
                    raise InputError(f"codes are {list(codes.shape)}, expected {list(expected)} for signals of {size}")
                if tokenizer.encode_only is None:
                    tokenizer.decode(codes, size=size)
        except Exception as error:  # a network may fail with anything where its sizes do not fit
            reason = error if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{source}: spec and config do not go together: {reason}") from error


def _check_belongs(weights: Path, saved: Mapping[str, Any]) -> None:
    """Raise CheckpointError if the weights state another network than the configuration: saving was stopped midway."""
    stated = _stated_in(weights)
    for key in ("architecture", "config"):
        if stated.get(key, saved[key]) != saved[key]:
            raise CheckpointError(
                f"{weights.parent}: {WEIGHTS} and {CONFIG} are of different networks (their {key} differs), as when "
                f"saving is stopped between the two; save again, or load {WEIGHTS} by itself"
            )


def _read_configuration(path: Path) -> dict[str, Any]:
    if path.is_dir():
        if not os.path.isfile(path / CONFIG) and os.access(path, os.R_OK | os.X_OK):
            raise CheckpointError(f"{path}: no {CONFIG}; expected a folder that save_pretrained wrote")
        try:
            with (path / CONFIG).open("rb") as file:
                content = file.read(CONFIG_BYTES + 1)
            if len(content) > CONFIG_BYTES:
                raise ValueError(f"more than {CONFIG_BYTES:,} bytes")
            saved = read_json(content.decode())
        except OSError as error:
            raise CheckpointError(f"{path / CONFIG}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise CheckpointError(f"{path / CONFIG}: not JSON ({error})") from None
        if isinstance(saved, dict) and "model_type" in saved:
            return _of_transformers(saved, path / CONFIG)
    else:
        saved = _stated_in(path)
    if not isinstance(saved, dict) or not {"architecture", "spec", "config"} <= saved.keys():
        raise CheckpointError(
            f"{path}: is not a zoo tokenizer; zoo.load(NAME, weights=...) reads the authors' file of a variant"
        )
    try:
        _check_parts(saved)
    except InputError as error:
        raise CheckpointError(f"{path / CONFIG if path.is_dir() else path}: {error}") from None
    return saved


def _of_transformers(stated: dict[str, Any], place: Path) -> dict[str, Any]:
    """Return a configuration of `transformers` as one of ours, with the key map of the weights beside it as `keys`."""
    model_type = stated["model_type"]
    if not isinstance(model_type, str) or model_type not in TRANSFORMERS:
        raise CheckpointError(
            f"{place}: is not a zoo tokenizer, but a {reprlib.repr(model_type)} of transformers; those that load too: "
            f"{', '.join(TRANSFORMERS)}. zoo.load(NAME, weights=...) reads the file of another variant"
        )
    name = TRANSFORMERS[model_type]
    architecture: Any = registry.architecture(name)
    try:
        spec, settings = architecture.of_transformers(as_tuples(stated))
    except InputError as error:
        raise CheckpointError(f"{place}: {error}") from None
    return {
        "architecture": name,
        "spec": asdict(spec),
        "config": {"settings": settings},
        "keys": architecture.keys_of(settings),
    }


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
    several = [source for source in variant.sources if not isinstance(source, PackageSource) and source.also]
    single = [source for source in variant.sources if source not in several]
    if several and not ours_in(path) and (path.is_dir() or not single):
        return _published_together(variant.name, path, several[0], expected)
    if ours_in(path):
        state = read_checkpoint(path)
        saved, wanted = _read_configuration(path), configuration(network)
        for key in ("architecture", "config"):
            if key in saved and as_tuples(saved[key]) != as_tuples(wanted[key]):
                found = repr(saved[key])[:1000]
                raise CheckpointError(f"{path}: {key} is {found}, not {wanted[key]}; nothing was loaded")
    else:
        packaged = [source for source in variant.sources if isinstance(source, PackageSource)]
        state = packaged[0].read(path) if packaged and path.suffix != ".safetensors" else read_checkpoint(path)
        # Each published layout has its keys; the file is in the one of which it has most.
        keys = [source.keys for source in single if source.keys is not None]
        best = max(keys, key=lambda layout: layout.found(state, expected), default=None)
        if best is not None and (len(keys) == 1 or best.found(state, expected)):
            return check_weights(state, expected, str(path), best)
    return check_weights(state, expected, str(path))


def ours_in(path: Path) -> bool:
    """Return whether a file is one that zoo wrote."""
    return path.suffix == ".safetensors" and "zoo" in read_metadata(path)


def _published_together(
    name: str, folder: Path, source: HubSource | FileSource, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of the published files of a source that has several, in a folder laid out like the Hub's.

    Raises:
        CheckpointError: a path that is no such folder, or a file that does not fit.
    """
    names = [file.filename for file in source.files]
    if missing := [name for name in names if not (folder / name).is_file()]:
        like = f" as in {source.repo}" if isinstance(source, HubSource) else ""
        raise CheckpointError(
            f"{folder}: {name} needs {' and '.join(names)} in a folder{like}; there is no {' and no '.join(missing)}"
        )
    state: dict[str, Tensor] = {}
    for file in source.files:
        path = folder / file.filename
        state |= check_weights(read_checkpoint(path), expected, str(path), file.keys)
    return state


def found_weights(variant: Variant, network: Tokenizer) -> Mapping[str, Tensor]:
    """Return the variant's own tensors, from a package or the Hub; `network` is the variant's network."""
    path = weights_file(variant, network)
    if variant.weights is None and variant.shipped is not None:
        return local_weights(variant, path, network)
    state, expected = read_checkpoint(path), network.state_dict()
    if variant.shipped is None:
        from zoo.fetching import is_converted

        if is_converted(path):  # and so finite: its values are not read before they are needed
            return check_state(state, expected, str(path))
    return check_weights(state, expected, str(path))


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
    warnings.warn(message, stacklevel=4)
