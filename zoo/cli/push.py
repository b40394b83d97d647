"""`zoo push`: put a tokenizer into a Hub repository."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.options import names
from zoo.cli.terminal import progress_bar


def push(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Variant, alias, saved folder or file.", autocompletion=names)
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Hub repository, owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Branch to commit to; default: main.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
) -> None:
    """Put a tokenizer with its card into a Hub repository."""
    import zoo

    with progress_bar(f"pushing {name}"):
        address = zoo.push(name, repo, private=private or None, branch=branch, create_pr=create_pr)
    typer.echo(address)
