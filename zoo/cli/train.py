"""`zoo train`: train a tokenizer from a recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.options import JsonOption
from zoo.cli.terminal import print_json


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe that ships with zoo, or a YAML file.")],
    data: Annotated[str, typer.Option(help="Folder, shards-{00..99}.tar or hf://OWNER/NAME.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe.")] = None,
    validation_data: Annotated[str | None, typer.Option(help="Data for validation, in the form of --data.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/ and the recipe's name.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start again instead of continuing.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; the same command continues it.")] = None,
    accelerator: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    devices: Annotated[str | None, typer.Option(help="As in Lightning Fabric; default: 1, or torchrun's.")] = None,
    num_nodes: Annotated[int | None, typer.Option(help="As in Lightning Fabric; default: 1, or torchrun's.")] = None,
    strategy: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    json: JsonOption = False,
) -> None:
    """Train a tokenizer, or continue a run that was stopped."""
    import zoo

    result = zoo.train(
        recipe,
        overrides or (),
        data=data,
        validation_data=validation_data,
        run_dir=out,
        resume=not restart,
        minutes=minutes,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
    )
    if json:
        print_json({**asdict(result), "run_dir": str(result.run_dir), "weights": str(result.weights)})
    else:
        typer.echo(result.weights)
