"""`zoo tokenize`: a source of media to a corpus of tokens."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.options import (
    ChainOption,
    CropOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    NameArgument,
    NumCodebooksOption,
    NumScalesOption,
    NumTokensOption,
    ResampleOption,
    ResolutionOption,
    SecondsOption,
    StartOption,
)
from zoo.cli.terminal import parse_device, parse_dtype, print_error, print_json, status_line

if TYPE_CHECKING:
    from zoo.corpus import CorpusResult, Progress


class Format(StrEnum):
    parquet = "parquet"
    megatron = "megatron"
    webdataset = "webdataset"
    npz = "npz"
    huggingface = "huggingface"


class Engine(StrEnum):
    local = "local"
    ray = "ray"


def tokenize(
    name: NameArgument,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help=(
                "Folders and files of media, 'shards-{0000..0099}.tar', a manifest (.jsonl), a table (.parquet, "
                "hf://OWNER/NAME) or code files."
            ),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the corpus.", show_default=False)],
    format: Annotated[Format, typer.Option(help="Format of the corpus.")] = Format.parquet,
    pattern: Annotated[
        str | None, typer.Option(help="Megatron: order of the ids: frame_first, coarse_first, parallel or delay.")
    ] = None,
    markers: Annotated[
        list[str] | None,
        typer.Option("--marker", help="Megatron: begin, end, row or frame; may be given several times."),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="Megatron: the first id.")] = None,
    push_to: Annotated[
        str | None, typer.Option(help="Hugging Face: OWNER/NAME to push the finished folder to.")
    ] = None,
    media: Annotated[bool, typer.Option("--media", help="WebDataset: keep each item's file beside its codes.")] = False,
    resolution: ResolutionOption = None,
    crop: CropOption = None,
    start: StartOption = None,
    seconds: SecondsOption = None,
    resample: ResampleOption = None,
    chain: ChainOption = None,
    num_codebooks: NumCodebooksOption = None,
    num_tokens: NumTokensOption = None,
    num_scales: NumScalesOption = None,
    chunk_seconds: Annotated[
        float | None, typer.Option(help="Long audio: seconds that are encoded at once, where a tokenizer can.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Processes of this machine, or Ray Data, on RAY_ADDRESS if that is set.")
    ] = Engine.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes or actors; default: one, or one a GPU.", show_default=False)
    ] = None,
    readers: Annotated[int, typer.Option(min=0, help="Threads of a worker that read files ahead.")] = 1,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Samples, pixels or residues that are encoded at once.")
    ] = None,
    items_per_shard: Annotated[
        int | None, typer.Option(min=1, help="Items in a shard, where the source has no shards of its own.")
    ] = None,
    rank: Annotated[int, typer.Option(min=0, help="Do every WORLD_SIZE-th shard alone, from this one on.")] = 0,
    world_size: Annotated[int, typer.Option(min=1, help="Number of such runs, as of Slurm or torchrun.")] = 1,
    strict: Annotated[bool, typer.Option("--strict", help="A damaged item is an error of its shard.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the encoder.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    json: JsonOption = False,
) -> None:
    """Tokenize folders, shards or data sets into tokens that a training reads.

    A run that was stopped or killed goes on when the same command is given again. Items that are damaged are left out
    and named in failures.jsonl; manifest.json has the counts.
    """
    from zoo.loading import resolve

    resolve(name)  # a mistyped name is reported before torch is imported
    from zoo import corpus

    with status_line() as show:
        result = corpus.tokenize(
            name,
            source if len(source) > 1 else source[0],
            out,
            format=format.value,
            pattern=pattern,
            markers=markers or None,
            offset=offset,
            media=media or None,
            push_to=push_to,
            resolution=resolution,
            crop=crop,
            start=start,
            seconds=seconds,
            resample=resample,
            chain=chain,
            num_codebooks=num_codebooks,
            num_tokens=num_tokens,
            num_scales=num_scales,
            chunk_seconds=chunk_seconds,
            device=parse_device(device),
            dtype=parse_dtype(dtype),
            compile=compile,
            engine=engine.value,
            workers=workers,
            readers=readers,
            max_batch=max_batch,
            items_per_shard=items_per_shard,
            rank=rank,
            world_size=world_size,
            strict=strict,
            progress=lambda progress: show(line_of(progress)),
        )
    for failure in result.failed_shards:
        print_error(failure.error, failure.shard)
    if json:
        print_json(as_json(result))
    else:
        print_result(result)
    if result.failed_shards:
        raise typer.Exit(1)


def line_of(progress: Progress) -> str:
    """Return a line that says how far a run is."""
    pace = progress.items / progress.seconds if progress.seconds else 0.0
    left = f"{progress.seconds_left / 60:.1f} min left"
    return (
        f"{progress.shards}/{progress.all_shards} shards  {progress.items:,} items ({pace:,.1f}/s)  "
        f"{progress.failures} left out  {progress.tokens:,} tokens  {left}"
    )


def print_result(result: CorpusResult) -> None:
    typer.echo(
        f"{result.folder}: {result.shards:,} shards, {result.items:,} items, {result.amount:,.1f} "
        f"{result.amount_unit}, {result.tokens:,} tokens"
    )
    if result.is_complete:
        usage = ", ".join(f"{share:.1%}" for share in result.usage)
        entropy = ", ".join(f"{bits:.2f}" for bits in result.entropy)
        typer.echo(f"entries used: {usage}; entropy in bits: {entropy}")
    if result.failures:
        first = result.failures[0]
        typer.echo(f"{len(result.failures)} items were left out, such as {first.key}: {first.error}", err=True)
    if not result.is_complete:
        typer.echo("shards are missing; the same command does them", err=True)


def as_json(result: CorpusResult) -> dict[str, Any]:
    plain = asdict(result)
    plain["folder"] = str(result.folder)
    plain["failures"] = [failure._asdict() for failure in result.failures]
    plain["failed_shards"] = [{"shard": failure.shard, "error": str(failure.error)} for failure in result.failed_shards]
    return plain
