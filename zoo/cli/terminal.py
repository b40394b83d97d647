"""Functions that the commands share: printing, progress and errors."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch

    from zoo.transcode import Figures

SECONDS_BEFORE_PROGRESS = 1.0


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_error(message: object, of: object = "") -> None:
    """Print one line on stderr, which names `of`."""
    text = " ".join(str(message).split())
    print(f"error: {text}" if str(of) in text else f"error: {of}: {text}", file=sys.stderr)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[str] = ()) -> None:
    """Print aligned columns. They are never cut: the terminal wraps lines that are too long."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, markup=False, highlight=False)
    unlimited = console.options.update(max_width=10_000)
    console.width = Measurement.get(console, unlimited, table).maximum
    console.print(table, crop=False)


def print_figures(columns: Sequence[str], rows: Sequence[tuple[list[str], Figures]], modality: str) -> None:
    """Print a table with what signals of one modality cost and lost, after the cells of `columns`."""
    from zoo.metrics import METRICS

    metrics = [METRICS[modality][name] for name in rows[0][1].quality]
    numeric = ["tokens", "bits", "ratio", *(metric.column for metric in metrics), "seconds"]
    cells = [
        [
            *labels,
            f"{figures.tokens:,}",
            f"{figures.bits:,.0f}",
            f"{figures.compression_ratio:,.1f}",
            *(metric.text(figures.quality[metric.name]) for metric in metrics),
            f"{figures.seconds:.2f}",
        ]
        for labels, figures in rows
    ]
    print_table([*columns, *numeric], cells, numeric)


def figures_as_json(figures: Figures) -> dict[str, Any]:
    plain = asdict(figures)
    return {**plain.pop("quality"), **plain}


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr, or a spinner if `total` is None; yield a function that advances it.

    It appears after a second, and only if stderr is a terminal. While it is shown, errors may be printed, but no
    results.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    counted = [BarColumn(), MofNCompleteColumn()] if total is not None else [SpinnerColumn()]
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        *counted,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    )
    task = progress.add_task(description, total=total)
    start = threading.Timer(SECONDS_BEFORE_PROGRESS, progress.start)
    start.start()
    try:
        yield lambda: progress.advance(task)
    finally:
        start.cancel()
        start.join()
        progress.stop()


def parse_device(name: str) -> str:
    """Return `name`; usage error if torch has no such device on this machine."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"device {name!r} cannot be used here: {reason}") from None
    return name


def parse_dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, name)
