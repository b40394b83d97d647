"""`zoo info`: all that is known about a tokenizer."""

from __future__ import annotations

from typing import Any

import typer

from zoo.cli.options import JsonOption, VariantArgument
from zoo.cli.terminal import print_json


def info(name: VariantArgument, json: JsonOption = False) -> None:
    """Show all that is known about a tokenizer."""
    from zoo.catalog import facts

    known = facts(name)
    if json:
        print_json(known)
        return
    width = max(map(len, known))
    if known["other_scales"]:
        known["other_scales"] = f"of {len(known['other_scales'])} other sizes, which --json shows"
    for key, value in known.items():
        if text := as_text(value):
            typer.echo(f"{key:<{width}}  {text}")


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        value = [as_text(v) if isinstance(v, dict | list | tuple) else v for v in value]
        return " x ".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,g}" if isinstance(value, float) else str(value)
