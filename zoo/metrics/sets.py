"""Figures of whole sets in constant memory: Fréchet distance, Inception score and pooled PSNR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchmetrics
from torch import Tensor

SIDES = ("reconstruction", "original")


class FrechetDistance(torchmetrics.Metric):
    """Distance of two Gaussians, fitted to features of reconstructions and of originals (Heusel et al. 2017).

    It is the squared distance of the means plus `trace(A + B - 2 (A B)^(1/2))` of the covariances, which are those of
    a sample (divided by one less than its size), as in the authors' code, pytorch-fid and torch-fidelity. The state is
    sums in float64, so memory is constant, and merged metrics return the same as one alone.

    With fewer items than features, the covariances are singular and the distance is too large: figures of sets of
    different sizes cannot be compared. NaN for fewer than two items.

    Args:
        features: function from signals `[B, ...]` to floating `[B, size]`.
        size: number of features of an item.
    """

    full_state_update = False
    higher_is_better = False
    reconstruction_count: Tensor
    original_count: Tensor

    def __init__(self, features: Callable[[Tensor], Tensor], size: int, **options: Any):
        super().__init__(**options, compute_with_cache=False)  # `merge_state` leaves a cached result as it is
        self.features = features
        for side in SIDES:
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{side}_sum", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_products", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, reconstruction: Tensor, original: Tensor) -> None:
        """Add both `[B, ...]`, as `features` takes them; their numbers of items may differ."""
        for side, signals in zip(SIDES, (reconstruction, original), strict=True):
            if len(signals) == 0:
                continue
            features = self.features(signals).double().to(self.device)
            getattr(self, f"{side}_count").add_(len(features))
            getattr(self, f"{side}_sum").add_(features.sum(dim=0))
            getattr(self, f"{side}_products").addmm_(features.T, features)

    def compute(self) -> Tensor:
        """Return the distance, a float64 scalar of at least 0."""
        if min(self.reconstruction_count, self.original_count) < 2:
            return torch.tensor(torch.nan, dtype=torch.float64, device=self.device)
        return frechet_distance(*self._moments("reconstruction"), *self._moments("original"))

    def _moments(self, side: str) -> tuple[Tensor, Tensor]:
        count, total, products = (getattr(self, f"{side}_{name}") for name in ("count", "sum", "products"))
        mean = total / count
        return mean, (products - count * torch.outer(mean, mean)) / (count - 1)


class InceptionScore(torchmetrics.Metric):
    """Inception score of the reconstructions (Salimans et al. 2016): how sure and how varied their labels are.

    `exp(mean over images of KL(p(y|x), p(y)))`, with `p(y)` the mean of all `p(y|x)`: one split. The authors, and
    torch-fidelity by default, score ten parts of the set, each with its own `p(y)`, and average the ten; the `p(y)` of
    a part is less even than that of the whole, so their figure is lower, the more so the smaller the set. The state is
    sums in float64. NaN without images.

    Args:
        logits: function from images `[B, ...]` to floating `[B, classes]`.
        classes: number of classes.
    """

    full_state_update = False
    higher_is_better = True
    count: Tensor
    negative_entropy: Tensor
    probability: Tensor

    def __init__(self, logits: Callable[[Tensor], Tensor], classes: int, **options: Any):
        super().__init__(**options, compute_with_cache=False)
        self.logits = logits
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("negative_entropy", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("probability", torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, reconstruction: Tensor, original: Tensor) -> None:
        """Add images `[B, ...]`, as `logits` takes them; the originals are not used."""
        if len(reconstruction) == 0:
            return
        logits = self.logits(reconstruction).double().to(self.device)
        probability = logits.softmax(dim=1)
        self.count += len(logits)
        self.negative_entropy += (probability * logits.log_softmax(dim=1)).sum()
        self.probability += probability.sum(dim=0)

    def compute(self) -> Tensor:
        """Return the score, a float64 scalar from 1 to the number of classes."""
        marginal = self.probability / self.count
        return (self.negative_entropy / self.count - torch.xlogy(marginal, marginal).sum()).exp()


class PooledPSNR(torchmetrics.Metric):
    """PSNR of a whole set: of the squared error of all pixels of all images, not the mean of the images' PSNR.

    The peak is the range of the originals' values, from at most 0: what torchmetrics' `PeakSignalNoiseRatio()` without
    arguments computes. NaN without images.
    """

    full_state_update = False
    higher_is_better = True
    error: Tensor
    count: Tensor
    least: Tensor
    greatest: Tensor

    def __init__(self, **options: Any):
        super().__init__(**options, compute_with_cache=False)
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("least", torch.zeros(()), dist_reduce_fx="min")
        self.add_state("greatest", torch.zeros(()), dist_reduce_fx="max")

    def update(self, reconstruction: Tensor, original: Tensor) -> None:
        """Add images `[B, 3, H, W]` in [0, 1]."""
        self.error += (reconstruction - original).double().square().sum()
        self.count += original.numel()
        self.least = torch.minimum(self.least, original.min().float())
        self.greatest = torch.maximum(self.greatest, original.max().float())

    def compute(self) -> Tensor:
        """Return the ratio in dB, a float64 scalar."""
        return -10 * (self.error / self.count / (self.greatest - self.least).double() ** 2).log10()


def frechet_distance(first_mean: Tensor, first_covariance: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the Fréchet distance of two Gaussians: means `[size]`, covariances `[size, size]`, float64.

    The trace of `(A B)^(1/2)` equals that of `(A^(1/2) B A^(1/2))^(1/2)`, which is symmetric: its eigenvalues are real
    and found faster than those of `A B`.
    """
    values, vectors = torch.linalg.eigh(first_covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    distance = (first_mean - mean).square().sum() + first_covariance.trace() + covariance.trace() - 2 * overlap
    return distance.clamp(min=0)
