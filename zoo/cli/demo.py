"""`zoo demo`: the samples and a user's own files through the tokenizers with shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.options import ChainOption, JsonOption
from zoo.cli.terminal import figures_as_json, print_failure, print_json, print_table, progress_bar


def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATHS", help="Images, audio, video, structures, and folders of them."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: a new one, zoo-demo.")] = None,
    chain: ChainOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    json: JsonOption = False,
) -> None:
    """Encode and decode samples with the shipped weights.

    The demo prints what the codes cost and what is lost, and writes a page to look at and listen to, index.html, beside
    the images, audio, video and structures that it shows. It needs no network.
    """
    from zoo import registry
    from zoo.demo import Demo
    from zoo.demo.page import ABOUT
    from zoo.demo.table import COLUMNS, NUMERIC_COLUMNS, table_cells

    work = Demo(paths or (), out, chain=chain, overwrite=overwrite)
    results = []
    if not json:
        typer.echo(f"{ABOUT}\n")
    with progress_bar("encoding and decoding", total=len(work)) as advance:
        for result in work:
            results.append(result)
            if result.error is not None:
                print_failure(result.error, result.input)
            advance()
    good = [(result, result.figures) for result in results if result.figures is not None]
    if json:
        print_json(
            {
                "folder": str(work.folder),
                "page": str(work.page),
                "results": [
                    {
                        "input": result.input,
                        "variant": result.variant,
                        **figures_as_json(figures),
                        "files": list(map(str, result.files)),
                    }
                    for result, figures in good
                ],
            }
        )
    elif good:
        rows = [table_cells(result.input, registry.info(result.variant).spec, figures) for result, figures in good]
        print_table(COLUMNS, rows, NUMERIC_COLUMNS)
        typer.echo("\n(NC): the license of these weights forbids commercial use.")
        typer.echo(f"Open {work.page} in a browser: it shows and plays everything.")
    if len(good) < len(results):
        typer.echo(f"{len(results) - len(good)} of {len(results)} failed", err=True)
        raise typer.Exit(1)
