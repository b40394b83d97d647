"""How the codes of a tokenizer are used, over all items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from zoo.bench.cache import Entry
from zoo.metrics.codes import CodeStatistics

HISTOGRAM_BARS = 256


def code_figures(codebook_sizes: Sequence[int], entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the statistics of the codes of all items, as `Point.codes` has them."""
    statistics = CodeStatistics(codebook_sizes)
    for entry in entries:
        statistics.update(entry.read_codes())
    summary = statistics.compute()
    return {
        "tokens": summary.positions * len(codebook_sizes) / len(entries),
        "usage": summary.usage,
        "perplexity": summary.perplexity,
        "entropy_bits": summary.entropy,
        "paid_bits": [math.log2(size) for size in codebook_sizes],
        "histogram": [histogram(statistics, k) for k in range(len(codebook_sizes))],
        "statistics": summary._asdict(),
    }


def histogram(statistics: CodeStatistics, codebook: int) -> list[int]:
    """Return the counts of a codebook's entries in at most `HISTOGRAM_BARS` bars; empty where they were not counted."""
    if codebook not in statistics.entries.starts:
        return []
    assert isinstance(statistics.entry_counts, torch.Tensor)
    counts = statistics.entries.of(statistics.entry_counts, codebook)
    width = -(-len(counts) // HISTOGRAM_BARS)
    return [int(part.sum()) for part in counts.split(width)]
