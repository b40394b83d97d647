"""`zoo list`: the table of all tokenizers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from zoo.cli.options import JsonOption
from zoo.cli.terminal import print_json, print_table


def list_tokenizers(
    modality: Annotated[str | None, typer.Option(help="Only those of this modality: image, audio, ...")] = None,
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
