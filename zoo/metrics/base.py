"""What a metric is: a figure per item that is averaged, or one figure of a whole set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    import torchmetrics

PerItem = Callable[[Tensor, Tensor, TokenizerSpec], Tensor]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of merit for reconstructions of a modality.

    label, unit, digits: how it is shown. higher_is_better: None where neither is.
    per_item: reconstruction and original, as `Tokenizer.decode` gives and `encode` takes them, and the spec, to `[B]`;
        NaN for an item that it is not defined for. None where the figure is of a set.
    of_set: builds the streaming metric of a figure of a set, whose `update` takes reconstruction and original.
    missing: says what it lacks on this machine, a package or a network's weights, and how to get it; None: nothing.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 3
    higher_is_better: bool | None
    per_item: PerItem | None = None
    of_set: Callable[[TokenizerSpec], torchmetrics.Metric] | None = None
    missing: Callable[[], str | None] = lambda: None

    @property
    def column(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.{self.digits}f}"

    def streaming(self, spec: TokenizerSpec) -> torchmetrics.Metric:
        """The metric in constant memory: `update(reconstruction, original)`, `merge_state`, `compute`."""
        if self.of_set is not None:
            return self.of_set(spec)
        from zoo.metrics.streaming import MeanOfItems

        return MeanOfItems(self.per_item, spec)


def plain_metric(name: str, label: str, figure: Callable[[Tensor, Tensor], Tensor], **options: Any) -> Metric:
    """A metric whose figure per item takes reconstruction and original alone; `options` are the other fields."""
    return Metric(name=name, label=label, per_item=partial(_without_spec, figure), **options)


def _without_spec(
    figure: Callable[[Tensor, Tensor], Tensor], reconstruction: Tensor, original: Tensor, spec: TokenizerSpec
) -> Tensor:
    return figure(reconstruction, original)
