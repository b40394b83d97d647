"""The demo's table, in the terminal and on the page."""

from __future__ import annotations

from zoo.metrics import METRICS
from zoo.spec import TokenizerSpec
from zoo.transcode import Figures

NUMERIC_COLUMNS = ("tokens", "bytes", "size")
COLUMNS = ("input", "tokenizer", "license of the weights", *NUMERIC_COLUMNS, "closeness")


def table_cells(name: str, spec: TokenizerSpec, figures: Figures) -> list[str]:
    """Return the cells of a result for the input called `name`, one for each of `COLUMNS`."""
    metrics = METRICS[spec.modality]
    return [
        name,
        spec.name,
        spec.weights_license if spec.allows_commercial_use else f"{spec.weights_license} (NC)",
        f"{figures.tokens:,}",
        f"{figures.bits / 8:,.0f}",
        f"1/{figures.compression_ratio:,.0f}",
        ", ".join(metrics[metric].phrase(value) for metric, value in figures.quality.items()),
    ]
