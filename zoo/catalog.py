"""The table of tokenizers for `zoo list` and the README, facts about each, and the index of the models.

`python -m zoo.catalog` writes `models/index.json`; a test compares it with what the model files register.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from zoo import index, modalities, registry
from zoo.checkpoints import without_storage
from zoo.errors import InputError
from zoo.registry import FileSource, HubSource, PackageSource, Source, Variant
from zoo.spec import TokenizerSpec

LIST_START, LIST_END = "<!-- zoo list -->", "<!-- /zoo list -->"
COLUMNS = ("name", "modality", "quantizer", "codebooks", "tokens", "bits", "parameters", "license", "weights")
NOTE = (
    "Tokens and bits are per second of audio, per image of 256x256 pixels (or of the one size that a variant takes), "
    "per 17 frames of 256x256 pixels, or per residue. "
    "The license is that of the weights; (NC) forbids commercial use. Weights ship with zoo or with a package that it "
    "needs, or are the authors' on the Hub."
)


@dataclass(frozen=True)
class CatalogEntry:
    """One variant as a row of the table.

    codebooks: their number and size, as `codebooks` returns them.
    per: what `tokens` and `bits` are counted for, such as "second".
    commercial: whether the license of the weights allows commercial use, as far as it says.
    weights: "shipped" with zoo or another package, "authors'" on the Hub, or "none".
    """

    name: str
    modality: str
    quantizer: str
    codebooks: str
    tokens: float
    bits: float
    per: str
    parameters: int
    weights_license: str
    commercial: bool
    weights: str
    aliases: tuple[str, ...]


def catalog(*, modality: str | None = None, quantizer: str | None = None) -> list[CatalogEntry]:
    """Return all variants by name, or only those of a modality or a quantizer family.

    Raises:
        InputError: a modality or family that no variant has.
    """
    names = registry.list_tokenizers(modality=modality, quantizer=quantizer)
    variants = [registry.info(name) for name in registry.list_tokenizers()]
    for field, wanted in (("modality", modality), ("quantizer", quantizer)):
        known = sorted({getattr(variant.spec, field) for variant in variants})
        if wanted is not None and wanted.lower() not in known:
            raise InputError(f"no tokenizer has {field} {wanted!r}; there are {', '.join(known)}")
    return [_entry(registry.info(name)) for name in names]


def num_parameters(variant: Variant) -> int:
    """Return the number of parameters of a variant's network: from the index, or counted for a plug-in's."""
    known = index.read().parameters.get(variant.name)
    return _counted(variant) if known is None else known


def _counted(variant: Variant) -> int:
    with without_storage():
        return variant.build().num_parameters


def facts(name: str) -> dict[str, Any]:
    """Return all that is known about a variant without its weights, as plain values."""
    variant = registry.info(name)
    entry = _entry(variant)
    return {
        **asdict(variant.spec),
        "architecture": variant.builder.__name__,
        "tokens": entry.tokens,
        "bits": entry.bits,
        "per": entry.per,
        "frame_rate": variant.spec.frame_rate,
        "latency": variant.spec.latency,
        "parameters": entry.parameters,
        "config": dict(variant.config),
        "weights": weights_found(variant),
        "source_file": source_file(variant.sources[0]) if variant.sources else None,
        "further_files": [source_file(file) for file in further_files(variant.hub)],
        "other_source_files": [source_file(source) for source in variant.sources[1:]],
        "figures": dict(variant.figures),
        "aliases": entry.aliases,
    }


def further_files(source: Source | None) -> tuple[HubSource, ...] | tuple[FileSource, ...]:
    """Return the files that are needed beside the first one of a source."""
    return () if source is None or isinstance(source, PackageSource) else source.also


def source_file(source: Source) -> dict[str, str]:
    """Return where a published file is: in a repository on the Hub, in an installed package, or elsewhere."""
    if isinstance(source, FileSource):
        return {"where": source.where, **({"filename": source.filename} if source.filename else {})}
    if isinstance(source, PackageSource):
        return {"package": source.package, "filename": source.filename}
    return {"repo": source.repo, "filename": source.filename, "revision": source.revision}


def markdown_table(entries: list[CatalogEntry]) -> str:
    """Return the entries as a Markdown table between the markers that the README has around it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for entry in entries:
        also = f" ({', '.join(f'`{name}`' for name in entry.aliases)})" if entry.aliases else ""
        lines.append(f"| `{entry.name}`{also} | {' | '.join(cells(entry)[1:])} |")
    return "\n".join([LIST_START, *lines, "", NOTE, LIST_END])


def cells(entry: CatalogEntry) -> list[str]:
    """Return an entry's values as text, in the order of `COLUMNS`."""
    unit = modalities.get(entry.modality).unit
    return [
        entry.name,
        entry.modality,
        entry.quantizer,
        entry.codebooks,
        f"{entry.tokens:,g}{unit}",
        f"{entry.bits:,.4g}{unit}" if entry.bits < 100 else f"{entry.bits:,.0f}{unit}",
        f"{entry.parameters / 1e6:.1f} M" if entry.parameters >= 1e5 else f"{entry.parameters:,}",
        entry.weights_license if entry.commercial else f"{entry.weights_license} (NC)",
        entry.weights,
    ]


def _entry(variant: Variant) -> CatalogEntry:
    spec, modality = variant.spec, modalities.get(variant.spec.modality)
    size, per = modality.reference_size, modality.reference
    if size is not None and spec.sizes:
        usual, own = ("x".join(map(str, sides)) for sides in (size[-2:], spec.sizes[0]))
        size, per = (*size[:-2], *spec.sizes[0]), per.replace(usual, own)
    positions = spec.frame_rate if size is None else float(math.prod(spec.grid(size)))
    if positions is None:
        raise InputError(f"{spec.name} states no sample rate")
    return CatalogEntry(
        name=spec.name,
        modality=spec.modality,
        quantizer=spec.quantizer,
        codebooks=codebooks(spec),
        tokens=positions * len(spec.default_sizes),
        bits=positions * spec.bits_per_position,
        per=per,
        parameters=num_parameters(variant),
        weights_license=spec.weights_license,
        commercial=spec.allows_commercial_use,
        weights=weights(variant),
        aliases=tuple(sorted(name for name, target in registry.aliases().items() if target == spec.name)),
    )


def codebooks(spec: TokenizerSpec) -> str:
    """Return the number and size of the codebooks, such as "4x256", or "8 of 32x2,048" where `encode` uses some."""
    sizes = " + ".join(f"{len(list(equal))}x{size:,}" for size, equal in groupby(spec.codebook_sizes))
    return sizes if spec.default_codebooks is None else f"{spec.default_codebooks} of {sizes}"


def weights(variant: Variant) -> str:
    """Return whose weights `load` finds: "shipped" with a package, the "authors'" on the Hub, or "none"."""
    if variant.shipped is not None:
        return "shipped"
    return "authors'" if any(isinstance(source, HubSource) for source in variant.sources) else "none"


def weights_found(variant: Variant) -> str:
    """Return in words where `load` finds the weights: in which package, or in which file on the Hub."""
    packages = [source.package for source in variant.sources if isinstance(source, PackageSource)]
    if variant.weights is not None or packages:
        return f"shipped with {variant.package if variant.weights is not None else packages[0]}"
    published = [
        f"{source.repo}: {' and '.join(file.filename for file in source.files)}"
        for source in variant.sources
        if isinstance(source, HubSource)
    ]
    if published:
        return f"{' or '.join(published)} on the Hub"
    places = " and ".join(variant.places)
    return f"none on the Hub; the authors offer theirs at {places}" if places else "none published"


# The index


def make_index() -> str:
    """Return the text of `models/index.json` for what the model files register; networks are built without memory."""
    modules: dict[str, dict[str, Any]] = {}

    def entry(module: str) -> dict[str, Any]:
        return modules.setdefault(module, {"variants": {}, "aliases": {}, "architectures": []})

    counts: dict[str, int] = {}
    variants = sorted(registry.import_models(), key=lambda variant: variant.name)
    for variant in variants:
        network = repr((variant.builder, sorted(variant.config.items()), _shape(variant.spec)))
        counts[network] = counts.get(network) or _counted(variant)
        entry(variant.module)["variants"][variant.name] = counts[network]
    for alias, name in sorted(registry.aliases().items()):
        entry(registry.info(name).module)["aliases"][alias] = name
    for architecture in registry.architectures():
        if architecture.__module__.startswith("zoo."):
            entry(architecture.__module__)["architectures"].append(architecture.__name__)
    return json.dumps(dict(sorted(modules.items())), indent=2) + "\n"


def _shape(spec: TokenizerSpec) -> tuple[Any, ...]:
    # Variants with equal values of these, of the architecture and of the config have the same network, counted once.
    return spec.codebook_sizes, spec.downsample, spec.channels, spec.resolution, spec.num_tokens


if __name__ == "__main__":
    index.PATH.write_text(make_index(), encoding="utf-8")
