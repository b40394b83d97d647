"""`zoo list` and `zoo info`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from zoo.cli.terminal import JsonOption, print_json, print_table


def list_tokenizers(
    modality: Annotated[str | None, typer.Option(help="Only those for audio, image, ...")] = None,
    quantizer: Annotated[str | None, typer.Option(help="Only those with this family of quantizers.")] = None,
    json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
) -> None:
    """List the tokenizers."""
    from zoo.catalog import COLUMNS, NOTE, catalog, cells, markdown_table

    if json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other")
    entries = catalog(modality=modality, quantizer=quantizer)
    if json:
        print_json([asdict(entry) for entry in entries])
    elif markdown:
        typer.echo(markdown_table(entries))
    else:
        print_table(
            [*COLUMNS, "also"],
            [[*cells(entry), ", ".join(entry.aliases)] for entry in entries],
            numeric=["tokens", "bits", "parameters"],
        )
        typer.echo(NOTE)


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Variant or alias.")], json: JsonOption = False
) -> None:
    """Show all that is known of a tokenizer."""
    from zoo.catalog import describe

    description = describe(name)
    if json:
        print_json(description)
        return
    width = max(map(len, description))
    for key, value in description.items():
        if text := as_text(value):
            typer.echo(f"{key:<{width}}  {text}")


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,g}" if isinstance(value, float) else str(value)
