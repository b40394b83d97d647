"""`zoo export`: a training run's weights as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `zoo train`.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: RUN/weights.safetensors.")] = None,
    best: Annotated[bool, typer.Option("--best", help="Take the best checkpoint (validation.best).")] = False,
) -> None:
    """Write a training run's weights as a file that zoo can load and push."""
    import zoo

    typer.echo(zoo.export(run, out, best=best))
