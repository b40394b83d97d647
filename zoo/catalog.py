"""What there is to choose from, as rows: the table of `zoo list` and of the README."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from zoo import hub, registry
from zoo.checkpoints import without_storage
from zoo.errors import InputError
from zoo.registry import PackageSource, Variant
from zoo.tokenizer import TokenizerSpec

# The signal that tokens and bits are counted for, and its name; audio counts by its frame rate.
PER = {
    "audio": (None, "second"),
    "image": ((256, 256), "256x256 image"),
    "video": ((17, 256, 256), "17 frames of 256x256"),
    "structure": ((1,), "residue"),
}
UNIT = {"audio": "/s", "image": "/image", "video": "/clip", "structure": "/residue"}
LIST_START, LIST_END = "<!-- zoo list -->", "<!-- /zoo list -->"
COLUMNS = ("name", "modality", "quantizer", "codebooks", "tokens", "bits", "parameters", "license", "weights")
NOTE = (
    "Tokens and bits are per second of audio, image of 256x256 pixels (or of the one size that a variant takes), 17 "
    "frames of 256x256 pixels, or residue. "
    "License: of the weights; (NC) forbids commercial use. Weights: shipped with zoo or a package that it needs, "
    "or the authors' on the Hub."
)


@dataclass(frozen=True)
class CatalogEntry:
    """One variant in a row.

    codebooks: as "4x256". per: what `tokens` and `bits` are spent on, as "second".
    commercial: whether the weights' license allows commercial use as far as it says.
    weights: "shipped" with zoo or a package that it needs, or the "authors'", on the Hub.
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
    """All variants by name; only those of a modality or a quantizer family where given.

    Raises:
        InputError: a modality or family that no variant has.
    """
    specs = [registry.info(name).spec for name in registry.list_tokenizers()]
    for field, wanted in (("modality", modality), ("quantizer", quantizer)):
        known = sorted({getattr(spec, field) for spec in specs})
        if wanted is not None and wanted not in known:
            raise InputError(f"no tokenizer has {field} {wanted!r}; there are {', '.join(known)}")
    names = registry.list_tokenizers(modality=modality, quantizer=quantizer)
    variants = [registry.info(name) for name in names]
    counts: dict[tuple, int] = {}
    for variant in variants:
        network = _network_key(variant)
        if network not in counts:
            counts[network] = num_parameters(variant)
    return [_entry(variant, counts[_network_key(variant)]) for variant in variants]


def num_parameters(variant: Variant) -> int:
    """Parameters of the variant's network, which is built without memory for them."""
    with without_storage():
        return variant.builder(variant.spec, **variant.config).num_parameters


def is_shipped(name: str) -> bool:
    """Whether the variant's weights come with zoo or a package that it needs, so that it works offline."""
    variant = registry.info(name)
    return isinstance(variant.hub, PackageSource) or (hub.SHIPPED / f"{variant.name}.safetensors").is_file()


def describe(name: str) -> dict[str, Any]:
    """All that is known of a variant without its weights, as plain values."""
    variant = registry.info(name)
    entry = _entry(variant, num_parameters(variant))
    return {
        **asdict(variant.spec),
        "architecture": variant.builder.__name__,
        "tokens": entry.tokens,
        "bits": entry.bits,
        "per": entry.per,
        "frame_rate": variant.spec.frame_rate,
        "parameters": entry.parameters,
        "config": dict(variant.config),
        "weights": entry.weights,
        "source_file": source_file(variant),
        "figures": dict(variant.figures),
        "aliases": entry.aliases,
    }


def source_file(variant: Variant) -> dict[str, str] | None:
    """Where the authors' file is: of a repository on the Hub, or of an installed package."""
    if isinstance(variant.hub, PackageSource):
        return {"package": variant.hub.package, "filename": variant.hub.filename}
    return asdict(variant.hub) if variant.hub else None


def markdown_table(entries: list[CatalogEntry]) -> str:
    """The entries as a Markdown table between the markers that the README has around it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for entry in entries:
        also = f" ({', '.join(f'`{name}`' for name in entry.aliases)})" if entry.aliases else ""
        lines.append(f"| `{entry.name}`{also} | {' | '.join(cells(entry)[1:])} |")
    return "\n".join([LIST_START, *lines, "", NOTE, LIST_END])


def cells(entry: CatalogEntry) -> list[str]:
    """An entry's values under `COLUMNS`."""
    unit = UNIT[entry.modality]
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


def _entry(variant: Variant, parameters: int) -> CatalogEntry:
    spec = variant.spec
    size, per = PER[spec.modality]
    if not spec.variable_size:
        size, per = spec.resolution, f"{spec.resolution[0]}x{spec.resolution[1]} image"
    positions = spec.frame_rate or spec.tokens(size) / spec.num_codebooks
    return CatalogEntry(
        name=spec.name,
        modality=spec.modality,
        quantizer=spec.quantizer,
        codebooks=codebooks(spec),
        tokens=positions * spec.num_codebooks,
        bits=positions * spec.bits_per_position,
        per=per,
        parameters=parameters,
        weights_license=spec.weights_license,
        commercial=hub.allows_commercial_use(spec),
        weights="shipped" if is_shipped(spec.name) else "authors'",
        aliases=tuple(sorted(name for name, target in registry.aliases().items() if target == spec.name)),
    )


def codebooks(spec: TokenizerSpec) -> str:
    """How many codebooks of which size, as "4x256"."""
    return " + ".join(f"{len(list(equal))}x{size:,}" for size, equal in groupby(spec.codebook_sizes))


def _network_key(variant: Variant) -> tuple:
    # Variants that share it have the same network: it is counted once.
    spec = variant.spec
    sizes = (spec.codebook_sizes, spec.downsample, spec.channels, spec.resolution, spec.num_tokens)
    return variant.builder, repr(sorted(variant.config.items())), sizes
