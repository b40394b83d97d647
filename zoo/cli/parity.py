"""`zoo parity`: a tokenizer compared with its reference's outputs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.options import DeviceOption, JsonOption, VariantArgument
from zoo.cli.terminal import parse_device, print_json, print_table, progress_bar


def parity(
    name: VariantArgument,
    manifest: Annotated[Path, typer.Option(help="JSON file with the published tensors, axes and tolerance.")],
    golden: Annotated[Path, typer.Option(help="NPZ file with an input and the reference's outputs.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the synthetic checkpoint; default: the manifest's.")] = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Compare a tokenizer with its reference's outputs.

    The exit status is 0 within the tolerance, 1 beyond it. Where the manifest is of a part of the tokenizer, that part
    is compared.
    """
    import zoo

    with progress_bar(f"running {name}"):
        report = zoo.parity(name, manifest, golden, seed, parse_device(device))
    if json:
        print_json({**asdict(report), "passed": report.passed})
    else:
        rows = [
            [tensor, f"{difference:.3g}", f"{report.tolerance.get(f'{tensor}_max_abs', '-')}"]
            for tensor, difference in report.differences.items()
        ]
        print_table(["tensor", "greatest difference", "tolerance"], rows)
        if report.code_agreement is not None:
            required = report.tolerance["code_agreement"]
            typer.echo(f"codes: {report.code_agreement:.4%} agree, {required:.4%} required")
        what = "" if report.part is None else f": {report.part} alone"
        typer.echo(f"{'passed' if report.passed else 'failed'}{what}")
    if not report.passed:
        raise typer.Exit(1)
