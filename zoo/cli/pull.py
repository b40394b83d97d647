"""`zoo pull`: fetch weights ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.options import names


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Variant, alias or Hub repository.", autocompletion=names)
    ],
) -> None:
    """Fetch a tokenizer's weights for later use without a network."""
    import zoo

    typer.echo(zoo.pull(name))
