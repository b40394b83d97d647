"""Names to tokenizers: the only way in.

A model file ends with its variants (`register`, `alias`). The files are imported when the registry is first
asked for a name; packages from outside add theirs through the entry point group `zoo.tokenizers`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UnknownTokenizerError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zoo.checkpoints import KeyMap
    from zoo.tokenizer import Tokenizer, TokenizerSpec


@dataclass(frozen=True)
class HubSource:
    """The authors' published file: Hub repository, path inside it, revision."""

    repo: str
    filename: str
    revision: str = "main"


@dataclass(frozen=True)
class PackageSource:
    """A published file that an installed package carries, so that it is always at hand.

    read: its path to a state dict in the authors' names.
    """

    package: str
    filename: str
    read: Callable[[Path], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Variant:
    """One entry of the registry.

    builder: called as `builder(spec, **config)`. hub: where the authors' file is; None where the weights ship with
    this package.
    keys: how the published file's tensors are named. card: stem of its file in `hub_cards/`.
    figures: what the authors report, as `{"rFID, ImageNet 256x256": 0.12}`.
    """

    spec: TokenizerSpec
    builder: type[Tokenizer]
    config: Mapping[str, Any]
    hub: HubSource | PackageSource | None
    keys: KeyMap | None
    card: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name


_variants: dict[str, Variant] = {}
_aliases: dict[str, str] = {}


def register(
    name: str,
    builder: type[Tokenizer],
    *,
    spec: TokenizerSpec,
    config: Mapping[str, Any],
    hub: HubSource | PackageSource | None = None,
    keys: KeyMap | None = None,
    card: str,
    figures: Mapping[str, float] | None = None,
) -> None:
    """Add a variant; its fields are those of `Variant`. ValueError if the name is taken or not the spec's."""
    if name != spec.name:
        raise ValueError(f"tokenizer {name!r} has a spec named {spec.name!r}")
    if name in _variants or name in _aliases:
        raise ValueError(f"tokenizer {name!r} is registered twice")
    _variants[name] = Variant(spec, builder, dict(config), hub, keys, card, dict(figures or {}))


def alias(name: str, target: str) -> None:
    """Let `name` stand for the registered variant `target`."""
    if name in _variants or name in _aliases:
        raise ValueError(f"tokenizer {name!r} is registered twice")
    if target not in _variants:
        raise ValueError(f"alias {name!r} names {target!r}, which is not registered")
    _aliases[name] = target


def list_tokenizers(*, modality: str | None = None, quantizer: str | None = None) -> list[str]:
    """Names of all variants, sorted; only those of a modality or a quantizer family where given."""
    _import_models()
    return sorted(
        name
        for name, variant in _variants.items()
        if modality in (None, variant.spec.modality) and quantizer in (None, variant.spec.quantizer)
    )


def aliases() -> dict[str, str]:
    """Alias to variant name."""
    _import_models()
    return dict(_aliases)


def info(name: str) -> Variant:
    """The registered variant; UnknownTokenizerError with the nearest names."""
    _import_models()
    name = _aliases.get(name, name)
    if name not in _variants:
        near = difflib.get_close_matches(name, [*_variants, *_aliases], n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "zoo.list_tokenizers() names them all"
        raise UnknownTokenizerError(f"unknown tokenizer {name!r}; {hint}")
    return _variants[name]


def architecture(name: str) -> type[Tokenizer]:
    """The class that a saved `config.json` names: of a registered variant, or what `discretize` makes."""
    from zoo.discretization import DiscretizedTokenizer

    _import_models()
    known = (DiscretizedTokenizer, *(variant.builder for variant in _variants.values()))
    classes = {builder.__name__: builder for builder in known}
    if name not in classes:
        raise UnknownTokenizerError(f"unknown architecture {name!r}; known: {', '.join(sorted(classes))}")
    return classes[name]


def create(name: str, *, small: bool = False) -> Tokenizer:
    """The variant's network with random weights, in training mode; `small` makes it quick to try out."""
    variant = info(name)
    return variant.builder(variant.spec, **{**variant.config, **(variant.builder.small if small else {})})


def load(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Tokenizer:
    """A working tokenizer, in eval mode.

    Args:
        name: a variant or alias; a folder or a safetensors file that `save_pretrained` wrote; or a Hub repository
            `owner/name` that holds one. Weights of a variant are looked for in the package, on this machine, in our
            converted repository, then in the authors' published file on the Hub, which is converted once.
        weights: a file to take a variant's weights from: the authors' checkpoint or a safetensors file of ours.
        device: where the weights go.
        dtype: of the weights; None: float32.

    Raises:
        UnknownTokenizerError: a name that stands for nothing; with the nearest ones.
        WeightsUnavailableError: weights that are not on this machine and cannot be fetched; with what to do.
        CheckpointError: a file that is truncated, unsafe to read or not the network's; nothing is loaded.
        MediaError: the authors' file was fetched, but the converted one cannot be written beside the Hub's cache.
    """
    from zoo import hub

    return hub.load(name, weights=weights, device=device, dtype=dtype)


@cache
def _import_models() -> None:
    import zoo.models

    for module in pkgutil.walk_packages(zoo.models.__path__, "zoo.models."):
        importlib.import_module(module.name)
    for entry_point in importlib.metadata.entry_points(group="zoo.tokenizers"):
        entry_point.load()
