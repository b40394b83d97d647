"""`zoo pull`, `zoo push`, `zoo train`, `zoo export`, `zoo parity`: where weights come from, and if they are right."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from zoo.cli.terminal import JsonOption, print_json, print_table, progress_bar
from zoo.errors import ZooError


def pull(name: Annotated[str, typer.Argument(metavar="NAME", help="Variant, alias or Hub repository.")]) -> None:
    """Fetch a tokenizer's weights for use without a network."""
    from zoo import hub

    typer.echo(hub.pull(name))


def push(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Variant, alias, saved folder or file.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Hub repository, owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="To commit to; default: main.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
) -> None:
    """Put a tokenizer with its card into a Hub repository."""
    import zoo

    with progress_bar(f"loading {name}"):
        tokenizer = zoo.load(name)
    typer.echo(tokenizer.push_to_hub(repo, private=private or None, branch=branch, create_pr=create_pr))


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="One that ships with zoo, or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to it.")] = None,
    data: Annotated[str, typer.Option(help="Folder, shards-{00..99}.tar or hf://OWNER/NAME.")] = ...,
    validation_data: Annotated[str | None, typer.Option(help="As --data.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/ and the name.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start anew instead of going on.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many; the same command goes on.")] = None,
    accelerator: Annotated[str, typer.Option(help="Of Lightning Fabric.")] = "auto",
    devices: Annotated[str | None, typer.Option(help="Of Lightning Fabric; default: 1, or torchrun's.")] = None,
    num_nodes: Annotated[int | None, typer.Option(help="Of Lightning Fabric; default: 1, or torchrun's.")] = None,
    strategy: Annotated[str, typer.Option(help="Of Lightning Fabric.")] = "auto",
    json: JsonOption = False,
) -> None:
    """Train a tokenizer, or go on with a run that was stopped."""
    result = trainers().train(
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


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `zoo train`.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: RUN/weights.safetensors.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint's (validation.best).")] = False,
) -> None:
    """Write the weights of a training run's checkpoint as a file that zoo loads and pushes."""
    typer.echo(trainers().export(run, out, best=best))


def trainers() -> ModuleType:
    try:
        from zoo import trainers
    except ModuleNotFoundError as error:
        raise ZooError(f"training needs {error.name}: pip install 'tokenizer-zoo[train]'") from error
    return trainers


def parity(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Variant or alias.")],
    manifest: Annotated[Path, typer.Option(help="JSON: the published file's tensors, axes, tolerance.")],
    golden: Annotated[Path, typer.Option(help="NPZ: input and outputs of the reference.")],
    seed: Annotated[int | None, typer.Option(help="Of the synthetic checkpoint; default: the manifest's.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare a tokenizer with its reference's outputs.

    Exit status 0 within the tolerance, 1 beyond it.
    """
    from zoo.parity import parity

    with progress_bar(f"running {name}"):
        report = parity(name, manifest, golden, seed)
    if json:
        print_json({**asdict(report), "passed": report.passed})
    else:
        rows = [
            [tensor, f"{difference:.3g}", f"{report.tolerance.get(f'{tensor}_max_abs', '-')}"]
            for tensor, difference in report.differences.items()
        ]
        print_table(["tensor", "greatest difference", "tolerance"], rows)
        required = report.tolerance["code_agreement"]
        typer.echo(f"codes: {report.code_agreement:.4%} agree, {required:.4%} required")
        typer.echo("passed" if report.passed else "failed")
    if not report.passed:
        raise typer.Exit(1)
