"""`zoo decode`: code files to signals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.files import run
from zoo.cli.options import DeviceOption, Dtype, DtypeOption, JsonOption, OverwriteOption, names
from zoo.cli.terminal import parse_device, parse_dtype


def decode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Code files, and folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the signals, or a file if there is one input.")],
    name: Annotated[
        str | None, typer.Option(help="The tokenizer; default: the one that a file names.", autocompletion=names)
    ] = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Decode code files to images, audio, video or protein structures.

    An interrupted run continues when the same command is given again: files that exist and are newer than their code
    file are skipped and counted.
    """
    import zoo

    results = zoo.decode_files(
        inputs, out, name=name, device=parse_device(device), dtype=parse_dtype(dtype), overwrite=overwrite
    )
    run("decoding", results, json)
