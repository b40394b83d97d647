"""`zoo encode`: files and folders to code files."""

from __future__ import annotations

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
    InputsArgument,
    JsonOption,
    NameArgument,
    NumCodebooksOption,
    NumTokensOption,
    OverwriteOption,
    ResampleOption,
    ResolutionOption,
    SecondsOption,
)


def encode(
    name: NameArgument,
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the code files, or a file if there is one input.")],
    format: Annotated[CodeFormat, typer.Option(help="Format of the code files in a folder.")] = CodeFormat.npz,
    batch_size: Annotated[int, typer.Option(min=1, help="Signals of one size encoded at once.")] = 1,
    resolution: ResolutionOption = None,
    crop: CropOption = None,
    seconds: SecondsOption = None,
    resample: ResampleOption = None,
    chain: ChainOption = None,
    all_chains: AllChainsOption = False,
    num_codebooks: NumCodebooksOption = None,
    num_tokens: NumTokensOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Encode images, audio, video or protein structures to code files.

    An interrupted run continues when the same command is given again: files with codes of the same tokenizer, options
    and source are skipped and counted.
    """
    import zoo

    tokenizer = load(name, device, dtype)
    results = zoo.encode_files(
        tokenizer,
        inputs,
        out,
        format=format.value,
        resolution=resolution,
        crop=crop,
        seconds=seconds,
        resample=resample,
        chain=chain,
        all_chains=all_chains,
        num_codebooks=num_codebooks,
        num_tokens=num_tokens,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    run("encoding", results, json)
