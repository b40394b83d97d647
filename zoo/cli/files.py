"""Functions that `zoo encode`, `zoo decode` and `zoo reconstruct` share: loading, running, printing results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.options import Dtype
from zoo.cli.terminal import (
    FigureRows,
    figures_as_json,
    parse_device,
    parse_dtype,
    print_failure,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer
    from zoo.transcode import FileResult, FileResults


def load(name: str, device: str, dtype: Dtype) -> Tokenizer:
    import zoo
    from zoo.loading import resolve

    resolve(name)  # a mistyped name is reported before torch is imported
    with progress_bar(f"loading {name}"):
        return zoo.load(name, device=parse_device(device), dtype=parse_dtype(dtype))


def run(description: str, results: FileResults, json: bool, modality: str | None = None) -> None:
    """Do the work and print the result of each file when it is done, with figures if there is a `modality`.

    JSON is printed as one array at the end, even if the work is stopped. The exit status is 1 if a file failed.
    """
    done: list[FileResult] = []
    rows = None if modality is None else FigureRows("file", map(str, results.sources), modality)
    try:
        with progress_bar(description, total=len(results)) as advance:
            for result in results:
                if not done or result.source != done[-1].source:
                    advance()
                done.append(result)
                if result.error is not None:
                    print_failure(result.error, result.source)
                elif not json and not result.done_before:
                    print_result(result, rows)
    except (KeyboardInterrupt, SystemExit):
        good = [result for result in done if result.error is None]
        typer.echo(f"stopped: {len(good)} of {len(results)} files are done; the same command does the others", err=True)
        raise
    finally:
        if json:
            print_json([as_json(result) for result in done])
    if before := sum(result.done_before for result in done):
        typer.echo(f"{before} of {len(done)} were done before and are kept; --overwrite replaces them", err=True)
    if failed := sum(result.error is not None for result in done):
        typer.echo(f"{failed} of {len(done)} files failed", err=True)
        raise typer.Exit(1)


def print_result(result: FileResult, rows: FigureRows | None) -> None:
    if rows is not None and result.figures is not None:
        rows.print(str(result.source), result.figures)
    else:
        typer.echo(f"{result.source} -> {result.target}")


def as_json(result: FileResult) -> dict[str, Any]:
    if result.error is not None:
        return {"source": str(result.source), "error": str(result.error)}
    written = {"source": str(result.source), "target": str(result.target), "codes_shape": result.codes_shape}
    if result.done_before:
        return {**written, "done_before": True}
    return {**written, **(figures_as_json(result.figures) if result.figures else {})}
