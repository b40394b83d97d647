"""Functions that the commands share: printing, progress and errors."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch

    from zoo.transcode import Figures

TRACEBACKS = ContextVar("TRACEBACKS", default=False)  # whether `zoo -v` asks for them
SECONDS_BEFORE_PROGRESS = 1.0
SECONDS_BETWEEN_LINES = 30.0  # of progress in a log
LONGEST_FIGURE = 10  # characters of most figures, such as 12,345,678


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_error(message: object, of: object = "") -> None:
    """Print one line on stderr, which names `of`."""
    text = " ".join(str(message).split())
    print(f"error: {text}" if str(of) in text else f"error: {of}: {text}", file=sys.stderr)


def print_failure(error: Exception, of: object) -> None:
    """Print the error of one item of several, under `zoo -v` with its traceback."""
    if TRACEBACKS.get():
        traceback.print_exception(error)
    print_error(error, of)


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


class FigureRows:
    """A table of the cost and loss of signals of one modality, whose rows are printed one by one, as they are done.

    Args:
        column: title of the first column. labels: all its possible entries, which decide its width.
    """

    def __init__(self, column: str, labels: Iterable[str], modality: str):
        self._column, self._modality = column, modality
        self._width = max(map(len, (column, *labels)))
        self._widths: list[int] = []

    def print(self, label: str, figures: Figures) -> None:
        if not self._widths:
            titles = figure_titles(figures, self._modality)
            self._widths = [max(len(title), LONGEST_FIGURE) for title in titles]
            self._print(self._column, titles)
        self._print(label, figure_cells(figures, self._modality))

    def _print(self, label: str, cells: Sequence[str]) -> None:
        aligned = (cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
        typer.echo("  ".join([label.ljust(self._width), *aligned]))


def figure_titles(figures: Figures, modality: str) -> list[str]:
    from zoo.metrics import METRICS

    return ["tokens", "bits", "ratio", *(METRICS[modality][name].column for name in figures.quality), "seconds"]


def figure_cells(figures: Figures, modality: str) -> list[str]:
    from zoo.metrics import METRICS

    return [
        f"{figures.tokens:,}",
        f"{figures.bits:,.0f}",
        f"{figures.compression_ratio:,.1f}",
        *(METRICS[modality][name].text(value) for name, value in figures.quality.items()),
        f"{figures.seconds:.2f}",
    ]


def figures_as_json(figures: Figures) -> dict[str, Any]:
    plain = asdict(figures)
    return {**plain.pop("quality"), **plain}


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr, or a spinner if `total` is None; yield a function that advances it.

    It appears after a second, where stderr is a terminal. Errors and results may be printed while it is there.
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
        redirect_stdout=sys.stdout.isatty(),  # to above the bar; a pipe gets the output unchanged
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


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a line on stderr: in place of the last on a terminal, in a log at times."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return
    last = time.monotonic()

    def show(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    yield show


def parse_device(name: str) -> str:
    """Return `name`; usage error unless it is a device of this machine that a network can run on."""
    from zoo.errors import InputError
    from zoo.loading import check_placement

    try:
        check_placement(name, None)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def parse_dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, name)
