"""The table of tokenizers for `zoo list` and the README, and the facts about each, without importing any network.

Those of zoo's own tokenizers are in `models/catalog.json`, which `python -m zoo.facts` writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from zoo import index, registry
from zoo.errors import InputError, shown

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
    per: what `tokens` and `bits` are counted for, such as "second". unit: its short form, such as "/s".
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
    unit: str
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
    entries = [_entry(facts(name)) for name in registry.names()]
    for field, wanted in (("modality", modality), ("quantizer", quantizer)):
        if wanted is None:
            continue
        known = sorted({getattr(entry, field) for entry in entries})
        if not isinstance(wanted, str) or wanted.lower() not in known:
            raise InputError(f"no tokenizer has {field} {shown(wanted)}; there are {', '.join(known)}")
    return [
        entry
        for entry in entries
        if (modality is None or entry.modality == modality.lower())
        and (quantizer is None or entry.quantizer == quantizer.lower())
    ]


def facts(name: str) -> dict[str, Any]:
    """Return all that is known about a variant without its weights, as plain values.

    Raises:
        UnknownTokenizerError: there is no such variant.
    """
    name = registry.resolve(name)
    known = _recorded().get(name)
    if known is None:  # a plug-in's
        known = import_module("zoo.facts").facts_of(registry.info(name))
    aliases = sorted(alias for alias, target in registry.aliases().items() if target == name)
    return {**known, "aliases": aliases}


@cache
def _recorded() -> dict[str, dict[str, Any]]:
    return json.loads(index.CATALOG.read_text(encoding="utf-8"))


def _entry(known: dict[str, Any]) -> CatalogEntry:
    fields = {field: known[field] for field in CatalogEntry.__dataclass_fields__ if field not in ("weights", "aliases")}
    return CatalogEntry(**fields, weights=known["whose_weights"], aliases=tuple(known["aliases"]))


def markdown_table(entries: list[CatalogEntry]) -> str:
    """Return the entries as a Markdown table between the markers that the README has around it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for entry in entries:
        also = f" ({', '.join(f'`{name}`' for name in entry.aliases)})" if entry.aliases else ""
        lines.append(f"| `{entry.name}`{also} | {' | '.join(cells(entry)[1:])} |")
    return "\n".join([LIST_START, *lines, "", NOTE, LIST_END])


def cells(entry: CatalogEntry) -> list[str]:
    """Return an entry's values as text, in the order of `COLUMNS`."""
    return [
        entry.name,
        entry.modality,
        entry.quantizer,
        entry.codebooks,
        f"{entry.tokens:,g}{entry.unit}",
        f"{entry.bits:,.4g}{entry.unit}" if entry.bits < 100 else f"{entry.bits:,.0f}{entry.unit}",
        f"{entry.parameters / 1e6:.1f} M" if entry.parameters >= 1e5 else f"{entry.parameters:,}",
        entry.weights_license if entry.commercial else f"{entry.weights_license} (NC)",
        entry.weights,
    ]
