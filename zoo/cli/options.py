"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class CodeFormat(StrEnum):
    npz = "npz"
    safetensors = "safetensors"


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Pcm(StrEnum):
    s16le = "s16le"
    f32le = "f32le"


def names(incomplete: str) -> list[str]:
    """Return the variants and aliases of zoo that begin with `incomplete`, for completion in the shell."""
    from zoo import index

    known = index.read()
    return sorted(name for name in (*known.variants, *known.aliases) if name.startswith(incomplete))


def known(name: str) -> str:
    """Return the name of a variant; UnknownTokenizerError for another, before anything heavy is imported."""
    from zoo import registry

    registry.resolve(name)
    return name


VariantArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Variant or alias, as `zoo list` shows them.", autocompletion=names, callback=known
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Variant, alias, Hub repository, saved folder or file.", autocompletion=names),
]
InputsArgument = Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Files, and folders of them.")]
OptionalInputs = Annotated[
    list[Path] | None, typer.Argument(metavar="INPUTS", help="Files, and folders of them.", show_default=False)
]
StreamOption = Annotated[
    bool,
    typer.Option(
        "--stream",
        help=(
            "Causal audio: from stdin to stdout as it comes. Samples are raw, at the model's rate; codes are "
            "little-endian integers of 16 bits (64 if a codebook has over 32,768 entries), frame by frame."
        ),
    ),
]
PcmOption = Annotated[Pcm, typer.Option(help="With --stream: format of the samples, as FFmpeg names it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of a decoder that draws noise, for each file; default: another each time."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files instead of keeping them.")]
ResolutionOption = Annotated[
    int | None, typer.Option(min=1, help="Images, video: resize the short side to this, and keep the centre square.")
]
CropOption = Annotated[
    int | None,
    typer.Option(min=0, help="Images, video: side of the centre square; default: --resolution; 0: keep all."),
]
StartOption = Annotated[
    float | None, typer.Option(help="Audio, video: seconds to leave out at the start; default: none.")
]
SecondsOption = Annotated[float | None, typer.Option(help="Audio, video: seconds to take; default: all.")]
ResampleOption = Annotated[
    bool | None,
    typer.Option("--resample/--no-resample", help="Audio: resample files of another rate (default), or refuse them."),
]
ChainOption = Annotated[
    str | None,
    typer.Option(help="Structures: id of the chain to take; needed if a file has more than one."),
]
AllChainsOption = Annotated[
    bool, typer.Option("--all-chains", help="Structures: take every chain; outputs are called NAME_CHAIN.")
]
NumCodebooksOption = Annotated[
    int | None, typer.Option(min=1, help="Residual codebooks: how many of the first to use; default: the model's own.")
]
NumTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Tokens in the order of their importance: how many of the first to use.")
]
NumScalesOption = Annotated[
    int | None, typer.Option(min=1, help="A pyramid of scales: how many of the first, coarsest ones to use.")
]
DeviceOption = Annotated[str, typer.Option(help="Where the network runs, such as cuda.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Data type of the weights.")]
