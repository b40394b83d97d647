"""Means of figures in constant memory; apart from `base`, since torchmetrics takes seconds to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torchmetrics
from torch import Tensor

from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    from zoo.metrics.base import PerItem


class Mean(torchmetrics.Metric):
    """Mean of figures; those that are not finite are left out, NaN if all are."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any):
        # Not cached: `merge_state` leaves a cached result as it is.
        super().__init__(compute_with_cache=False, **options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, figures: Tensor) -> None:
        finite = figures.double()[figures.isfinite()]
        self.total += finite.sum()
        self.count += finite.numel()

    def compute(self) -> Tensor:
        return self.total / self.count


class MeanOfItems(Mean):
    """Mean of a figure over all items."""

    def __init__(self, per_item: PerItem, spec: TokenizerSpec, **options: Any):
        super().__init__(**options)
        self.per_item, self.spec = per_item, spec

    def update(self, reconstruction: Tensor, original: Tensor) -> None:
        self.add(self.per_item(reconstruction, original, self.spec))
