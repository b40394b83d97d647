"""The registry: which variant, and which architecture, a name stands for.

A model file ends with its variants: it calls `register` for a base variant and for what `replace` makes of it, and
`alias`. A model file is imported when one of its variants is first needed, as the index says. Other packages add
variants through the entry point group `zoo.tokenizers`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from zoo import index
from zoo.errors import InputError, UnknownTokenizerError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.checkpoints import KeyMap
    from zoo.spec import TokenizerSpec
    from zoo.tokenizer import Tokenizer

ENTRY_POINTS = "zoo.tokenizers"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"  # of a saved tokenizer
BESIDE_THE_MODELS = ("zoo.discretization",)  # modules of architectures without variants


@dataclass(frozen=True)
class HubSource:
    """A published file on the Hub: repository, path inside it, revision, and how its tensors are named.

    keys: None for a file in the layout of `save_pretrained`.
    also: files that hold the rest of the tensors, where `keys` is for some of them `only`.
    """

    repo: str
    filename: str
    revision: str = "main"
    keys: KeyMap | None = None
    also: tuple[HubSource, ...] = ()

    @property
    def files(self) -> tuple[HubSource, ...]:
        """All files that are needed, this one first."""
        return self, *self.also


@dataclass(frozen=True)
class PackageSource:
    """A published file that an installed package contains, so that it is always available.

    read: reads the file at a path as a state dict with the authors' names, which `keys` turns into ours.
    """

    package: str
    filename: str
    read: Callable[[Path], Mapping[str, Tensor]]
    keys: KeyMap | None = None

    @property
    def path(self) -> Path:
        return Path(str(files(self.package) / self.filename))


@dataclass(frozen=True)
class FileSource:
    """A published file that is neither on the Hub nor in a package: `zoo.load(name, weights=FILE)` reads it.

    where: place where the authors offer it; "" if there is none.
    filename, also: its name, and files that hold the rest of the tensors, where `keys` is for some of them `only`;
        `weights=` is then a folder that has them all.
    """

    where: str = ""
    keys: KeyMap | None = None
    filename: str = ""
    also: tuple[FileSource, ...] = ()

    @property
    def files(self) -> tuple[FileSource, ...]:
        """All files that are needed, this one first."""
        return self, *self.also


Source = HubSource | PackageSource | FileSource


@dataclass(frozen=True)
class Variant:
    """One entry of the registry.

    builder: the architecture, called as `builder(spec, **config)`.
    sources: published files that hold the weights, the authors' first; any of them will do. Empty where the weights
        come with the package alone, or were not published.
    weights: file of the weights in the variant's own package, in the layout of `save_pretrained`; None: it has none.
        A relative path starts from the folder of the package, of a plug-in that is one module from where that lies.
    card: stem of its model card, in `hub_cards/` or in the folder `cards` of a plug-in's package; None: one is made
        from the spec.
    figures: what the authors report, as `{"rFID, ImageNet 256x256": 0.12}`.
    package: the package that the variant comes from: "zoo", or a plug-in's. "" stands for that of the architecture.
    """

    spec: TokenizerSpec
    builder: type[Tokenizer]
    config: Mapping[str, Any]
    sources: tuple[Source, ...] = ()
    weights: str | None = None
    card: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    package: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "package", (self.package or self.module).partition(".")[0])

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def hub(self) -> Source | None:
        """The first source: the authors' file."""
        return self.sources[0] if self.sources else None

    @property
    def places(self) -> tuple[str, ...]:
        """Places other than the Hub and packages where the authors offer published files."""
        found = (file for source in self.sources if isinstance(source, FileSource) for file in source.files)
        return tuple(file.where for file in found if file.where)

    @property
    def keys(self) -> KeyMap | None:
        """The key map of the authors' file."""
        return self.sources[0].keys if self.sources else None

    @property
    def module(self) -> str:
        """The module that defines the architecture."""
        return self.builder.__module__

    @property
    def shipped(self) -> Path | None:
        """The file of weights on this machine, in the variant's own package or in one that zoo needs; None: none."""
        if self.weights is not None:
            return _folder(self.package) / self.weights
        packaged = [source.path for source in self.sources if isinstance(source, PackageSource)]
        return packaged[0] if packaged else None

    @property
    def card_file(self) -> Path | None:
        """The model card in the variant's own package; None: it has none."""
        return None if self.card is None else _folder(self.package) / "cards" / f"{self.card}.md"

    def build(self, *, small: bool = False) -> Tokenizer:
        """Return the network with random weights, in training mode; `small` makes it quick to try out."""
        return self.builder(self.spec, **{**self.config, **(self.builder.small if small else {})})


def _folder(package: str) -> Path:
    """The folder of an imported package; of a single module, the one that holds it."""
    module = sys.modules[package]
    folders = list(getattr(module, "__path__", ()))
    return Path(folders[0]) if folders else Path(getattr(module, "__file__", None) or "").parent


_variants: dict[str, Variant] = {}
_aliases: dict[str, str] = {}
_architectures: dict[str, type[Tokenizer]] = {}


# Adding


@overload
def register(name: Variant, /) -> Variant: ...


@overload
def register(
    name: str,
    builder: type[Tokenizer],
    *,
    spec: TokenizerSpec,
    config: Mapping[str, Any] = ...,
    hub: Source | Sequence[Source] | None = None,
    keys: KeyMap | None = None,
    weights: str | None = None,
    card: str | None = None,
    figures: Mapping[str, float] | None = None,
    package: str = ...,
) -> Variant: ...


def register(
    name: str | Variant,
    builder: type[Tokenizer] | None = None,
    *,
    spec: TokenizerSpec | None = None,
    config: Mapping[str, Any] | None = None,
    hub: Source | Sequence[Source] | None = None,
    keys: KeyMap | None = None,
    weights: str | None = None,
    card: str | None = None,
    figures: Mapping[str, float] | None = None,
    package: str = "",
) -> Variant:
    """Add a variant: one that `replace` has made, or a new one.

    Args:
        name: name of the variant, which its spec gets too; or the whole `Variant`.
        builder: the architecture.
        spec, config, weights, card, figures, package: as in `Variant`. A plug-in whose variant has an architecture of
            another package gives its own `package`, such as `__name__`.
        hub: published files, the authors' first. keys: key map of those that have none of their own.

    Returns:
        The variant, for `replace`.

    Raises:
        ValueError: a name that is taken, also by a variant of zoo that is not imported yet, or that is not the spec's.
    """
    if isinstance(name, Variant):
        variant = name
    elif builder is None or spec is None:
        raise TypeError("expected a builder and a spec with the name of a variant")
    elif spec.name not in ("", name):
        raise ValueError(f"tokenizer {name!r} has a spec named {spec.name!r}")
    else:
        spec = dataclasses.replace(spec, name=name)
        variant = Variant(
            spec, builder, dict(config or {}), _sources(hub, keys), weights, card, dict(figures or {}), package
        )
    _check_free(variant.name, variant.package)
    _variants[variant.name] = variant
    return variant


def replace(
    base: Variant,
    name: str,
    *,
    hub: Source | Sequence[Source] | None = None,
    keys: KeyMap | None = None,
    config: Mapping[str, Any] | None = None,
    weights: str | None = None,
    card: str | None = None,
    figures: Mapping[str, float] | None = None,
    package: str = "",
    **spec: Any,
) -> Variant:
    """Return a variant that differs from `base` in what is given.

    Args:
        name: name of the new variant.
        hub, weights, figures: those of the new variant; they are not taken over from `base`.
        keys: key map of `hub`; None: that of `base`.
        config: changes to the base's. card: None: that of `base`.
        package: package of a plug-in that changes another package's variant, such as `__name__`; the card is then in
            this package. "": that of `base`.
        spec: fields of the spec that differ.
    """
    return Variant(
        spec=dataclasses.replace(base.spec, name=name, **spec),
        builder=base.builder,
        config={**base.config, **(config or {})},
        sources=() if hub is None else _sources(hub, keys or base.keys),
        weights=weights,
        card=card if package else card or base.card,
        figures=dict(figures or {}),
        package=package or base.package,
    )


def alias(name: str, target: str) -> None:
    """Let `name` stand for the registered variant `target`; ValueError for a name that is taken."""
    if target not in _variants:
        raise ValueError(f"alias {name!r} names {target!r}, which is not registered")
    _check_free(name, _variants[target].package)
    _aliases[name] = target


def is_ours(name: str) -> bool:
    """Return whether `name` is that of a variant or an alias of zoo's, and of no plug-in's."""
    return name in index.read().variants or name in index.read().aliases


def _check_free(name: str, package: str) -> None:
    if name in _variants or name in _aliases or (package != "zoo" and is_ours(name)):
        raise ValueError(f"tokenizer {name!r} is registered twice")


def register_architecture(architecture: type[Tokenizer]) -> None:
    """Make a class known by its name, which `config.json` stores; `Tokenizer` does so for every subclass.

    Raises:
        ValueError: a class of another package with the name of one of zoo's.
    """
    name, module = architecture.__name__, architecture.__module__
    own = index.read().architectures.get(name)
    if own is not None and module != own and not module.startswith("zoo."):
        raise ValueError(f"architecture {name!r} of {module} is called like one of zoo's ({own}); rename it")
    _architectures[name] = architecture


@contextmanager
def temporary() -> Iterator[None]:
    """Undo, when the block ends, whatever was registered in it; for tests."""
    import_models()
    tables: list[dict[str, Any]] = [_variants, _aliases, _architectures]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)


def _sources(hub: Source | Sequence[Source] | None, keys: KeyMap | None) -> tuple[Source, ...]:
    """Return sources that each have a key map: their own, or `keys`."""
    if hub is None:
        return () if keys is None else (FileSource(keys=keys),)
    given = (hub,) if isinstance(hub, Source) else tuple(hub)
    return tuple(source if source.keys is not None else dataclasses.replace(source, keys=keys) for source in given)


# Asking


def list_tokenizers(*, modality: str | None = None, quantizer: str | None = None) -> list[str]:
    """Return the sorted names of all variants, or of those of a modality or a quantizer family, in any case.

    Raises:
        InputError: something other than text.
    """
    for what, text in (("modality", modality), ("quantizer", quantizer)):
        if text is not None and not isinstance(text, str):
            raise InputError(f"expected the name of a {what}, got {reprlib.repr(text)}")
    import_models()
    wanted = [text and text.lower() for text in (modality, quantizer)]
    return sorted(
        name
        for name, variant in _variants.items()
        if wanted[0] in (None, variant.spec.modality) and wanted[1] in (None, variant.spec.quantizer)
    )


def names() -> list[str]:
    """Return the sorted names of all variants, without importing those of zoo."""
    _import_plugins()
    return sorted({*index.read().variants, *_variants})


def aliases() -> dict[str, str]:
    """Return all aliases, each with the name of its variant."""
    _import_plugins()
    return {**index.read().aliases, **_aliases}


def architectures() -> list[type[Tokenizer]]:
    """Return all classes that are known so far, sorted by name."""
    return [_architectures[name] for name in sorted(_architectures)]


def is_variant(name: str | Path) -> bool:
    """Return whether `name` is that of a variant or an alias."""
    return isinstance(name, str) and _resolved(name) is not None


def resolve(name: str) -> str:
    """Return the name of the variant that `name` is, or stands for, without importing it.

    Raises:
        UnknownTokenizerError: there is none; with the nearest names.
    """
    if not isinstance(name, str):
        raise InputError(f"expected the name of a tokenizer, got {reprlib.repr(name)}")
    found = _resolved(name)
    if found is None:
        known = {**index.read().variants, **index.read().aliases, **_variants, **_aliases}
        near = difflib.get_close_matches(str(name)[:100], known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "zoo.list_tokenizers() names them all"
        raise UnknownTokenizerError(f"unknown tokenizer {str(name)[:100]!r}; {hint}")
    return found


def info(name: str) -> Variant:
    """Return the variant called `name`; UnknownTokenizerError, with the nearest names, if there is none."""
    found = resolve(name)
    if found not in _variants:
        importlib.import_module(index.read().variants[found])
    return _variants[found]


def architecture(name: str) -> type[Tokenizer]:
    """Return the class that a saved `config.json` names; UnknownTokenizerError if it is not known."""
    if not isinstance(name, str):
        raise InputError(f"expected the name of an architecture, got {reprlib.repr(name)}")
    if name not in _architectures:
        module = index.read().architectures.get(name)
        if module is not None:
            importlib.import_module(module)
        else:
            _import_plugins()
    if name not in _architectures:
        known = sorted({*index.read().architectures, *_architectures})
        raise UnknownTokenizerError(f"unknown architecture {name[:100]!r}; known: {', '.join(known)}")
    return _architectures[name]


def create(name: str, *, small: bool = False) -> Tokenizer:
    """Return the variant's network with random weights, in training mode; `small` makes it quick to try out."""
    return info(name).build(small=small)


def _resolved(name: str) -> str | None:
    known = index.read()
    for _ in range(2):  # without the plug-ins, which are slow to import, and with them
        found = _aliases.get(name, known.aliases.get(name, name))
        if found in _variants or found in known.variants:
            return found
        _import_plugins()
    return None


@cache
def import_models() -> list[Variant]:
    """Import every model file and plug-in; return the variants that the model files register."""
    for module in (*_model_files(), *BESIDE_THE_MODELS):
        importlib.import_module(module)
    own = list(_variants.values())
    _import_plugins()
    return [variant for variant in own if variant.package == "zoo"]


def _model_files() -> list[str]:
    folder = index.PATH.parent
    return [
        ".".join(("zoo.models", *path.relative_to(folder).with_suffix("").parts))
        for path in sorted(folder.rglob("[!_]*.py"))
    ]


@cache
def _import_plugins() -> None:
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load()
        except Exception as error:  # of somebody else's code, which must not keep everything else from working
            warnings.warn(
                f"the plug-in {entry_point.name} ({entry_point.value}) is left out, since it cannot be imported: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
