"""`zoo export-onnx`: a tokenizer as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.options import NameArgument


def export_onnx(
    name: NameArgument,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
) -> None:
    """Write a tokenizer as encoder.onnx and decoder.onnx, which run without PyTorch."""
    import zoo

    typer.echo(zoo.export_onnx(name, out))
