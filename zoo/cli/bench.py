"""`zoo bench`: tokenizers compared with the classical codecs on a folder of files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from zoo.cli.options import JsonOption
from zoo.cli.terminal import parse_device, print_error, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from zoo.bench.results import Interval, Results


class WithDefault(TyperGroup):
    """Commands under `zoo bench`: what is none of them are the names of tokenizers, for the command `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])


app = typer.Typer(cls=WithDefault, rich_markup_mode=None, add_completion=False)


@app.command("run", hidden=True)
def run(
    data: Annotated[Path, typer.Option(help="Folder of files.", show_default=False)],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Variants of one modality.", show_default=False)
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="A candidate of your own, package.module:Class; may be given several times."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Settings of a published evaluation; `zoo bench protocols` lists them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.html and the cache.")] = Path("zoo-bench"),
    limit: Annotated[int | None, typer.Option(min=1, help="Number of files; default: all.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Metrics to compute, such as psnr,ssim; default: all.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A metric of your own, package.module:name, beside them; may be given several times."),
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Run the classical codecs as well.")] = True,
    resolution: Annotated[int | None, typer.Option(min=1, help="Resize and crop images or video to a square.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds of audio or video to take; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the intervals, and of decoders that sample.")] = 0,
    device: Annotated[str, typer.Option(help="Where the tokenizers run, such as cuda.")] = "cpu",
    examples: Annotated[bool, typer.Option(help="Show originals and reconstructions in the report.")] = True,
    num_codebooks: Annotated[
        str | None,
        typer.Option(help="Numbers of residual codebooks to use, such as 1,2,3; default: 1, 2, 4, ... and all."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.", show_default=False)] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table for LaTeX.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Compare tokenizers with each other and with the classical codecs.

    An interrupted run continues when the same command is given again. The exit status is 1 if a file failed.
    `zoo bench protocols` lists the published evaluations; `zoo bench merge A B` makes one report of several results.
    """
    from zoo.bench.runner import Benchmark

    with progress_bar("loading"):
        work = Benchmark(
            names or [],
            data,
            candidates=candidate or [],
            protocol=protocol,
            out=out,
            metrics=None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()],
            own_metrics=metric or [],
            limit=limit,
            baselines=baselines,
            resolution=resolution,
            seconds=seconds,
            seed=seed,
            device=parse_device(device),
            examples=examples,
            num_codebooks=None if num_codebooks is None else numbers(num_codebooks),
        )
    for what, reason in work.left_out.items():
        typer.echo(f"left out: {what}: {reason}", err=True)
    known = set(work.left_out)
    with progress_bar("encoding, decoding and measuring", total=len(work)) as advance:
        results = work.run(advance)
    for what in results.left_out.keys() - known:
        typer.echo(f"left out: {what}: {results.left_out[what]}", err=True)
    for source, reason in results.excluded.items():
        typer.echo(f"excluded: {source}: {reason}", err=True)
    for source, reason in results.damaged.items():
        print_error(reason, of=source)
    show(results, out, csv, latex, json)
    if results.damaged:
        total = len(results.damaged) + results.data["files"]
        typer.echo(f"{len(results.damaged)} of {total} files failed", err=True)
        raise typer.Exit(1)


@app.command("merge")
def merge(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Folders of results, or results.json.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json and report.html.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the files, to show examples in the report.", show_default=False)
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.", show_default=False)] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table for LaTeX.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Make one report of several results on the same files with the same settings.

    Reconstructions stay where they are: the new results name them relative to their own folder.
    """
    from zoo.bench import merge as merged
    from zoo.bench.cache import make_folder
    from zoo.bench.report import write_report

    together = merged(results, out)
    make_folder(out)
    together.save(out / "results.json")
    write_report(together, out, out / "report.html", data)
    show(together, out, csv, latex, json)


@app.command("protocols")
def protocols(
    name: Annotated[str | None, typer.Argument(help="Show all settings of one.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """List the published evaluations that `zoo bench --protocol` follows, with what they lack on this machine."""
    from zoo.bench.protocols import load, names

    known = [load(each) for each in ([name] if name else names())]
    if json:
        print_json([asdict(protocol) for protocol in known])
        return
    for protocol in known:
        typer.echo(f"{protocol.name}: {protocol.title}\n  data: {protocol.data}")
        if name:
            for setting, value in protocol.preprocessing.items():
                typer.echo(f"  {setting} = {value}")
            for source in protocol.sources:
                typer.echo(f"  source: {source}")
            for difference in protocol.differences:
                typer.echo(f"  not as there: {difference}")
        for metric in protocol.chosen_metrics().values():
            reason = metric.missing()
            typer.echo(f"  {metric.label}" + (f": {reason}" if reason else ""))


def show(results: Results, out: Path, csv: Path | None, latex: Path | None, json: bool) -> None:
    """Print results, and write their table where that is wanted."""
    from zoo.bench.tables import write_csv, write_latex

    if csv is not None:
        write_csv(results, csv)
    if latex is not None:
        write_latex(results, latex)
    if json:
        print_json(as_json(results, out))
    else:
        print_points(results)
        typer.echo(f"\nIn brackets: 95 % intervals over {results.data['files']} items. {out / 'report.html'}")


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas, such as "1,2,4"."""
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as 1,2,4, got {text!r}") from None


def print_points(results: Results) -> None:
    from zoo import modalities

    speed = modalities.get(results.modality).speed_unit
    columns = [column(kind) for kind in results.metrics.values()]
    numeric = ["bytes", results.rate_unit, *columns, f"encode ({speed})", f"decode ({speed})", "MB"]
    rows = [
        [
            point.label,
            f"{point.bytes:,.0f}",
            f"{point.rate:.4g}",
            *(text(point.metrics[name], kind["digits"]) for name, kind in results.metrics.items()),
            f"{point.encode_speed:.3g}",
            f"{point.decode_speed:.3g}",
            f"{point.peak_bytes / 1e6:,.0f}",
        ]
        for point in results.points
    ]
    print_table(["candidate", *numeric], rows, numeric)


def column(metric: dict) -> str:
    return f"{metric['label']} ({metric['unit']})" if metric["unit"] else metric["label"]


def text(interval: Interval, digits: int) -> str:
    if interval.value is None:
        return "-"
    value = f"{interval.value:.{digits}f}"
    return value if interval.low is None else f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def as_json(results: Results, out: Path) -> dict:
    """Return the results without items and histograms, which are in the files, and the paths of the files."""
    plain = asdict(results)
    for point in plain["points"]:
        del point["items"], point["codes"]
    return {"results": str(out / "results.json"), "report": str(out / "report.html"), **plain}
