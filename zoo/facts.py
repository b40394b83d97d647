"""What is known about a variant without its weights, and the files of the models' folder that hold it for all of zoo's.

`python -m zoo.facts` writes `models/index.json` and `models/catalog.json`; tests compare both with what the model files
register.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import groupby
from typing import Any

from zoo import index, modalities, registry
from zoo.checkpoints import without_storage
from zoo.errors import InputError
from zoo.registry import FileSource, HubSource, PackageSource, Source, Variant
from zoo.spec import TokenizerSpec


def num_parameters(variant: Variant) -> int:
    """Return the number of parameters of a variant's network: from the index, or counted for a plug-in's."""
    known = index.read().parameters.get(variant.name)
    return _counted(variant) if known is None else known


def _counted(variant: Variant) -> int:
    with without_storage():
        return variant.build().num_parameters


def facts_of(variant: Variant) -> dict[str, Any]:
    """Return all that is known about a variant, as plain values of JSON."""
    spec, modality = variant.spec, modalities.get(variant.spec.modality)
    size, per = modality.reference_size, modality.reference
    if size is not None and spec.sizes:
        usual, own = ("x".join(map(str, sides)) for sides in (size[-2:], spec.sizes[0]))
        size, per = (*size[:-2], *spec.sizes[0]), per.replace(usual, own)
    positions = spec.frame_rate if size is None else float(math.prod(spec.grid(size)))
    if positions is None:
        raise InputError(f"{spec.name} states no sample rate")
    known = {
        **asdict(spec),
        "architecture": variant.builder.__name__,
        "codebooks": codebooks(spec),
        "tokens": positions * len(spec.default_sizes),
        "bits": positions * spec.bits_per_position,
        "per": per,
        "unit": modality.unit,
        "frame_rate": spec.frame_rate,
        "latency": spec.latency,
        "parameters": num_parameters(variant),
        "config": dict(variant.config),
        "commercial": spec.allows_commercial_use,
        "whose_weights": whose_weights(variant),
        "weights": weights_found(variant),
        "source_file": source_file(variant.sources[0]) if variant.sources else None,
        "further_files": [source_file(file) for file in further_files(variant.hub)],
        "other_source_files": [source_file(source) for source in variant.sources[1:]],
        "figures": dict(variant.figures),
        "aliases": sorted(name for name, target in registry.aliases().items() if target == spec.name),
    }
    return json.loads(json.dumps(known))


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


def codebooks(spec: TokenizerSpec) -> str:
    """Return the number and size of the codebooks, such as "4x256", or "8 of 32x2,048" where `encode` uses some."""
    sizes = " + ".join(f"{len(list(equal))}x{size:,}" for size, equal in groupby(spec.codebook_sizes))
    return sizes if spec.default_codebooks is None else f"{spec.default_codebooks} of {sizes}"


def whose_weights(variant: Variant) -> str:
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


# The files


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


def make_catalog() -> str:
    """Return the text of `models/catalog.json` for what the model files register."""
    variants = sorted(registry.import_models(), key=lambda variant: variant.name)
    lines = [f"{json.dumps(variant.name)}: {json.dumps(facts_of(variant))}" for variant in variants]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    index.PATH.write_text(make_index(), encoding="utf-8")
    index.read.cache_clear()
    index.CATALOG.write_text(make_catalog(), encoding="utf-8")
