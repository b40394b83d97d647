"""The `zoo` command. Each subcommand reads its arguments, calls one public function and prints what it returns."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import zoo
from zoo.cli import bench
from zoo.cli.decode import decode
from zoo.cli.demo import demo
from zoo.cli.encode import encode
from zoo.cli.export import export
from zoo.cli.export_onnx import export_onnx
from zoo.cli.info import info
from zoo.cli.list import list_tokenizers
from zoo.cli.parity import parity
from zoo.cli.probe import probe
from zoo.cli.pull import pull
from zoo.cli.push import push
from zoo.cli.reconstruct import reconstruct
from zoo.cli.terminal import TRACEBACKS, print_error
from zoo.cli.tokenize import tokenize
from zoo.cli.train import train
from zoo.errors import ZooError
from zoo.system_memory import keep_freed_memory

FOR_DEVELOPERS = (DeprecationWarning, FutureWarning, RuntimeWarning)  # warnings of libraries to those who call them
STOPPED_BY_CTRL_C = 130  # exit statuses as shells have them: 128 and the number of the signal


class Commands(TyperGroup):
    """Turns an error into one line on stderr and exit status 1; usage errors stay Typer's, with exit status 2.

    The exit status is 130 after Ctrl-C and 143 after SIGTERM.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
                if not ctx.params["verbose"]:
                    for category in FOR_DEVELOPERS:
                        warnings.simplefilter("ignore", category)
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(STOPPED_BY_CTRL_C) from None
        except Exception as error:
            if hasattr(error, "exit_code") or isinstance(error, (typer.Abort, BrokenPipeError)):
                raise  # Typer's own, and a reader of our output that went away
            if ctx.params["verbose"]:
                traceback.print_exc()
            if isinstance(error, ZooError | OSError):
                print_error(error)
            else:
                print_error(f"unexpected {type(error).__name__}: {error} (`zoo -v ...` shows where)")
            raise typer.Exit(1) from error


app = typer.Typer(cls=Commands, rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False)


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zoo {zoo.__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Discrete tokenizers for images, sound, video and protein structures."""
    TRACEBACKS.set(verbose)


app.command("list")(list_tokenizers)
for command in (
    info,
    encode,
    decode,
    reconstruct,
    tokenize,
    parity,
    pull,
    push,
    train,
    export,
    export_onnx,
    probe,
    demo,
):
    app.command()(command)
app.add_typer(bench.app, name="bench", help="Compare tokenizers with each other and with the classical codecs.")


def stop(number: int, frame: object) -> None:
    """End the process as an error does, so that what it was writing is removed."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    keep_freed_memory()
    app(prog_name="zoo")
