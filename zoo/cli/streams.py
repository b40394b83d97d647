"""Functions that `zoo encode --stream` and `zoo decode --stream` share."""

from __future__ import annotations

import typer

STREAMED = ("name", "stream", "pcm", "num_codebooks", "device", "dtype")  # parameters that a stream has


def check_stream(context: typer.Context, stream: bool, streamed_only: tuple[str, ...]) -> None:
    """Usage error for arguments that a stream does not have, that only a stream has, or that are missing.

    streamed_only: names of the parameters that only a stream has.
    """
    given = [
        parameter
        for parameter in context.command.params
        if parameter.name is not None
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    for parameter in given:
        if stream and parameter.name not in STREAMED:
            shown = parameter.opts[0] if parameter.param_type_name == "option" else "INPUTS"
            raise typer.BadParameter(f"{shown} does not go with --stream, which reads stdin and writes stdout")
        if not stream and parameter.name in streamed_only:
            raise typer.BadParameter(f"{parameter.opts[0]} goes with --stream")
    for name, shown in (("inputs", "INPUTS"), ("out", "--out")):
        if not stream and name not in [parameter.name for parameter in given]:
            raise typer.BadParameter(f"{shown} is missing; --stream reads stdin and writes stdout")
