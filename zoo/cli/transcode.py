"""`zoo encode`, `zoo decode` and `zoo reconstruct`: files and folders through a tokenizer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.terminal import (
    JsonOption,
    figures_as_json,
    parse_device,
    parse_dtype,
    print_error,
    print_figures,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer
    from zoo.transcode import Report, Reports


class CodeFormat(StrEnum):
    npz = "npz"
    safetensors = "safetensors"


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Variant, alias, Hub repository, saved folder or file.")
]
InputsArgument = Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Files, and folders of them.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
ChainOption = Annotated[
    str | None, typer.Option(help="Id of the chain to take from structures; default: the only one.")
]
ResampleOption = Annotated[bool, typer.Option(help="Resample audio of another rate, or take it for an error.")]
DeviceOption = Annotated[str, typer.Option(help="Where the network runs, such as cuda.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Of the weights.")]


def encode(
    name: NameArgument,
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option(help="Folder of the code files; for one input also the file.")],
    format: Annotated[CodeFormat, typer.Option(help="Of code files in a folder.")] = CodeFormat.npz,
    batch_size: Annotated[int, typer.Option(min=1, help="Signals of one size encoded at once.")] = 1,
    resample: ResampleOption = True,
    chain: ChainOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Encode images, audio, video or protein structures to code files."""
    from zoo import transcode

    tokenizer = load(name, device, dtype)
    reports = transcode.encode_files(
        tokenizer,
        inputs,
        out,
        format=format.value,
        resample=resample,
        chain=chain,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    run("encoding", reports, json)


def decode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Code files, and folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder of the signals; for one input also the file.")],
    name: Annotated[str | None, typer.Option(help="The tokenizer; default: the one that a file names.")] = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Decode code files to images, audio, video or protein structures."""
    from zoo import transcode

    reports = transcode.decode_files(
        inputs, out, name=name, device=parse_device(device), dtype=parse_dtype(dtype), overwrite=overwrite
    )
    run("decoding", reports, json)


def reconstruct(
    name: NameArgument,
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option(help="Folder of the reconstructions; for one input also the file.")],
    resample: ResampleOption = True,
    chain: ChainOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Encode and decode images, audio, video or protein structures, and measure what is lost."""
    from zoo import transcode

    tokenizer = load(name, device, dtype)
    reports = transcode.reconstruct_files(tokenizer, inputs, out, resample=resample, chain=chain, overwrite=overwrite)
    run("reconstructing", reports, json, tokenizer.spec.modality)


def load(name: str, device: str, dtype: Dtype) -> Tokenizer:
    import zoo

    with progress_bar(f"loading {name}"):
        return zoo.load(name, device=parse_device(device), dtype=parse_dtype(dtype))


def run(description: str, reports: Reports, json: bool, modality: str | None = None) -> None:
    """Do the work, print what came of it, figures if there is a `modality`; exit status 1 if a file failed."""
    done: list[Report] = []
    with progress_bar(description, total=len(reports)) as advance:
        for report in reports:
            done.append(report)
            if report.error is not None:
                print_error(report.error, of=report.source)
            advance()
    good = [report for report in done if report.error is None]
    if json:
        print_json([as_json(report) for report in done])
    elif good and modality is not None:
        print_figures(["file"], [([str(report.source)], report.figures) for report in good], modality)
    else:
        for report in good:
            typer.echo(f"{report.source} -> {report.target}")
    if len(good) < len(done):
        typer.echo(f"{len(done) - len(good)} of {len(done)} files failed", err=True)
        raise typer.Exit(1)


def as_json(report: Report) -> dict[str, Any]:
    if report.error is not None:
        return {"source": str(report.source), "error": str(report.error)}
    figures = figures_as_json(report.figures) if report.figures else {}
    return {"source": str(report.source), "target": str(report.target), "codes_shape": report.codes_shape, **figures}
