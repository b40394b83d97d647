"""`zoo probe`: how alike the rows of codebooks are, how their codes are used, and how steady codes are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.options import DeviceOption, JsonOption, NameArgument
from zoo.cli.terminal import parse_device, print_error, print_json, print_table

COLUMNS = {
    "size": ("entries", "{:,}"),
    "dim": ("dim", "{}"),
    "effective_dim": ("effective dim", "{:.1f}"),
    "nearest_cosine": ("nearest cosine", "{:.3f}"),
    "redundancy": ("redundant", "{:.1%}"),
    "usage": ("used", "{:.1%}"),
    "effective_codes": ("effective codes", "{:,.1f}"),
}


def probe(
    name: NameArgument,
    data: Annotated[
        Path | None, typer.Option(help="Folder of files: how steady are codes?", show_default=False)
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Folder that `zoo tokenize` wrote: how are codes used?", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of files; default: all.")] = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Show what a tokenizer's codebooks are like: similar rows, use, and codes that a small change changes."""
    from zoo.bench.probes import probe as probed

    found = probed(name, data=data, corpus=corpus, limit=limit, device=parse_device(device))
    for source, reason in found.get("failed", {}).items():
        print_error(reason, of=source)
    if json:
        print_json(found)
        return
    books = found["codebooks"]
    shown = {key: column for key, column in COLUMNS.items() if any(book.get(key) is not None for book in books)}
    changes = {f"{change}: changed": shares for change, shares in found.get("steadiness", {}).items()}
    heads = [head for head, _ in shown.values()] + list(changes)
    rows = []
    for index, book in enumerate(books):
        cells = [cell(book.get(key), text) for key, (_, text) in shown.items()]
        rows.append([str(index), *cells, *(f"{shares[index]:.1%}" for shares in changes.values())])
    print_table(["codebook", *heads], rows, heads)
    for reason in dict.fromkeys(book["reason"] for book in books if "reason" in book):
        typer.echo(reason)


def cell(value: Any, text: str) -> str:
    return "-" if value is None else text.format(value)
