"""`zoo decode`: code files to signals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.files import load, run
from zoo.cli.options import (
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    OverwriteOption,
    Pcm,
    PcmOption,
    SeedOption,
    StreamOption,
    names,
)
from zoo.cli.streams import check_stream
from zoo.cli.terminal import parse_device, parse_dtype


def decode(
    context: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUTS", help="Code files, and folders of them.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the signals, or a file if there is one input.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The tokenizer; default: the one that a file names.", autocompletion=names)
    ] = None,
    stream: StreamOption = False,
    pcm: PcmOption = Pcm.s16le,
    num_codebooks: Annotated[
        int | None, typer.Option(min=1, help="With --stream: codes of a frame; default: the model's own.")
    ] = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Decode code files to images, audio, video or protein structures, or a stream of codes to one of audio.

    An interrupted run continues when the same command is given again: files that exist and are newer than their code
    file are skipped and counted.
    """
    import zoo

    check_stream(context, stream, ("pcm", "num_codebooks"))
    if stream:
        if name is None:
            raise typer.BadParameter("--name is missing: a stream does not say which tokenizer its codes are of")
        tokenizer = load(name, device, dtype)
        zoo.decode_pcm(tokenizer, sys.stdin.buffer, sys.stdout.buffer, pcm=pcm.value, num_codebooks=num_codebooks)
        return
    assert inputs and out, "which check_stream asks for"
    results = zoo.decode_files(
        inputs, out, name=name, device=parse_device(device), dtype=parse_dtype(dtype), seed=seed, overwrite=overwrite
    )
    run("decoding", results, json)
