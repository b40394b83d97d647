"""`zoo encode`: files and folders to code files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.files import load, run
from zoo.cli.options import (
    AllChainsOption,
    ChainOption,
    CodeFormat,
    CropOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    NameArgument,
    NumCodebooksOption,
    NumScalesOption,
    NumTokensOption,
    OptionalInputs,
    OverwriteOption,
    Pcm,
    PcmOption,
    ResampleOption,
    ResolutionOption,
    SecondsOption,
    StartOption,
    StreamOption,
)
from zoo.cli.streams import check_stream


def encode(
    context: typer.Context,
    name: NameArgument,
    inputs: OptionalInputs = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the code files, or a file if there is one input.", show_default=False),
    ] = None,
    format: Annotated[CodeFormat, typer.Option(help="Format of the code files in a folder.")] = CodeFormat.npz,
    batch_size: Annotated[int, typer.Option(min=1, help="Signals of one size encoded at once.")] = 1,
    resolution: ResolutionOption = None,
    crop: CropOption = None,
    start: StartOption = None,
    seconds: SecondsOption = None,
    resample: ResampleOption = None,
    chain: ChainOption = None,
    all_chains: AllChainsOption = False,
    num_codebooks: NumCodebooksOption = None,
    num_tokens: NumTokensOption = None,
    num_scales: NumScalesOption = None,
    stream: StreamOption = False,
    pcm: PcmOption = Pcm.s16le,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Encode images, audio, video or protein structures to code files, or a stream of audio to one of codes.

    An interrupted run continues when the same command is given again: files with codes of the same tokenizer, options
    and source are skipped and counted.
    """
    import zoo

    check_stream(context, stream, ("pcm",))
    tokenizer = load(name, device, dtype)
    if stream:
        zoo.encode_pcm(tokenizer, sys.stdin.buffer, sys.stdout.buffer, pcm=pcm.value, num_codebooks=num_codebooks)
        return
    assert inputs and out, "which check_stream asks for"
    results = zoo.encode_files(
        tokenizer,
        inputs,
        out,
        format=format.value,
        resolution=resolution,
        crop=crop,
        start=start,
        seconds=seconds,
        resample=resample,
        chain=chain,
        all_chains=all_chains,
        num_codebooks=num_codebooks,
        num_tokens=num_tokens,
        num_scales=num_scales,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    run("encoding", results, json)
