"""What a metric is: a figure for each item, which is averaged, or one figure for a whole set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.errors import InputError
from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    import torchmetrics

PerItem = Callable[[Tensor, Tensor, TokenizerSpec], Tensor]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of merit for reconstructions of a modality.

    label, unit, digits: how it is shown. higher_is_better: None where neither direction is better.
    per_item: reconstruction and original, as `Tokenizer.decode` returns and `encode` takes them, and the spec, to
        `[B]`; NaN for an item that it is not defined for. None for a figure of a whole set.
    of_set: builds the streaming metric for a figure of a whole set; its `update` takes reconstruction and original.
    settings: what it is computed with, where that is not the default.
    missing: returns what this machine lacks, a package or a network's weights, and how to get it; None: nothing.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 3
    higher_is_better: bool | None
    per_item: PerItem | None = None
    of_set: Callable[[TokenizerSpec], torchmetrics.Metric] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: Callable[[], str | None] = lambda: None

    @property
    def column(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def described(self) -> str:
        """The name with the settings, if there are any."""
        return f"{self.name} {json.dumps(dict(self.settings), sort_keys=True)}" if self.settings else self.name

    def text(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.{self.digits}f}"

    def phrase(self, value: float | None) -> str:
        """Return a value with its label and unit, such as "PSNR 24.10 dB"."""
        return f"{self.label} {self.text(value)} {self.unit}".rstrip()

    def streaming(self, spec: TokenizerSpec) -> torchmetrics.Metric:
        """Return the metric in constant memory: `update(reconstruction, original)`, `merge_state`, `compute`."""
        if self.of_set is not None:
            return self.of_set(spec)
        from zoo.metrics.streaming import MeanOfItems

        assert self.per_item is not None, "a metric has a figure for each item or one for a set"
        return MeanOfItems(self.per_item, spec)


def plain_metric(name: str, label: str, figure: Callable[[Tensor, Tensor], Tensor], **options: Any) -> Metric:
    """Return a metric whose figure takes reconstruction and original but no spec; `options` are the other fields."""
    return Metric(name=name, label=label, per_item=partial(_without_spec, figure), **options)


def _without_spec(
    figure: Callable[[Tensor, Tensor], Tensor], reconstruction: Tensor, original: Tensor, spec: TokenizerSpec
) -> Tensor:
    return figure(reconstruction, original)


def check_images(reconstruction: Tensor, original: Tensor) -> None:
    """Raise InputError unless both are floating `[B, 3, H, W]` of one shape."""
    for name, images in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(images, Tensor) or not images.is_floating_point():
            came = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"expected {name} as a float tensor [batch, 3, height, width] in [0, 1], got {came}")
        if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
            raise InputError(f"expected {name} as [batch, 3, height, width], got {list(images.shape)}")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )
