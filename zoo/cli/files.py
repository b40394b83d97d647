"""Functions that `zoo encode`, `zoo decode` and `zoo reconstruct` share: loading, running, printing results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.options import Dtype
from zoo.cli.terminal import (
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
    from zoo.transcode import FileResult, FileResults


def load(name: str, device: str, dtype: Dtype) -> Tokenizer:
    import zoo
    from zoo.loading import resolve

    resolve(name)  # a mistyped name is reported before torch is imported
    with progress_bar(f"loading {name}"):
        return zoo.load(name, device=parse_device(device), dtype=parse_dtype(dtype))


def run(description: str, results: FileResults, json: bool, modality: str | None = None) -> None:
    """Do the work and print the results, with figures if there is a `modality`; exit status 1 if a file failed."""
    done: list[FileResult] = []
    with progress_bar(description, total=len(results)) as advance:
        for result in results:
            done.append(result)
            if result.error is not None:
                print_error(result.error, of=result.source)
            advance()
    good = [result for result in done if result.error is None]
    if json:
        print_json([as_json(result) for result in done])
    elif good and modality is not None:
        rows = [([str(result.source)], result.figures) for result in good if result.figures is not None]
        print_figures(["file"], rows, modality)
    else:
        for result in good:
            typer.echo(f"{result.source} -> {result.target}")
    if len(good) < len(done):
        typer.echo(f"{len(done) - len(good)} of {len(done)} files failed", err=True)
        raise typer.Exit(1)


def as_json(result: FileResult) -> dict[str, Any]:
    if result.error is not None:
        return {"source": str(result.source), "error": str(result.error)}
    figures = figures_as_json(result.figures) if result.figures else {}
    return {"source": str(result.source), "target": str(result.target), "codes_shape": result.codes_shape, **figures}
