"""`zoo reconstruct`: files encoded and decoded again, with figures of what is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.files import load, run
from zoo.cli.options import (
    AllChainsOption,
    ChainOption,
    CropOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    InputsArgument,
    JsonOption,
    NameArgument,
    NumCodebooksOption,
    NumScalesOption,
    NumTokensOption,
    OverwriteOption,
    ResampleOption,
    ResolutionOption,
    SecondsOption,
    SeedOption,
    StartOption,
)


def reconstruct(
    name: NameArgument,
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the reconstructions, or a file if there is one input.")],
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
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Encode and decode images, audio, video or protein structures, and measure what is lost.

    An interrupted run continues when the same command is given again: files that exist and are newer than their source
    are skipped and counted. So use a different folder for each tokenizer and each choice of options.
    """
    import zoo

    tokenizer = load(name, device, dtype)
    results = zoo.reconstruct_files(
        tokenizer,
        inputs,
        out,
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
        seed=seed,
        overwrite=overwrite,
    )
    run("reconstructing", results, json, tokenizer.spec.modality)
