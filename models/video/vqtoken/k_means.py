"""k-means of the features of one clip: their clusters, and the means that are the clip's codebook."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError
from zoo.quantizers import Quantizer, QuantizerOutput
from zoo.quantizers.base import without_autocast

TOLERANCE = 1e-4  # how far all centroids together may still move when k-means stops
SPREAD = 1e-6  # added to squared distances, so that any feature may be drawn as a centroid


class Clusters(NamedTuple):
    """k-means of the N features of one clip.

    labels: int64 `[N]`, the cluster of each. centroids: `[K, dim]`, of which the label is the most similar.
    codebook: `[K, dim]`, the mean of each cluster's normalised features; 0 for an empty cluster.
    distortions: for each number of clusters that was tried, the sum of the squared distances to the centroids.
    """

    labels: Tensor
    centroids: Tensor
    codebook: Tensor
    distortions: Tensor


class KMeans(Quantizer):
    """A vector becomes the number of its cluster among all vectors of its clip, by cosine similarity.

    Latents are `[clips, *grid, dim]`. Each clip is clustered by itself, and has at least as many vectors as clusters. A
    vector of length 0 is equally similar to all clusters, and joins the first.

    Args:
        dim: length of a vector.
        clusters: least and greatest number of clusters that are tried; two equal numbers fix it. Of those that were
            tried, the authors' rule takes max(least, i + 4), with i the place, from 0, at which the distortions have
            their greatest second difference. That is at most greatest - least + 2, and not the elbow of the curve,
            which is at least + i + 1.
        max_iterations: iterations of k-means, at most.
    """

    def __init__(self, dim: int, clusters: tuple[int, int], max_iterations: int):
        least, greatest = clusters
        if dim < 1 or max_iterations < 1 or least < 1 or (greatest != least and greatest < least + 2):
            raise InputError(
                "expected dim and max_iterations of at least 1, and clusters as a number twice or as two numbers at "
                f"least 2 apart, got {dim}, {max_iterations} and {clusters}"
            )
        super().__init__(dim, (max(least, greatest - least + 2),))
        self.least, self.greatest, self.max_iterations = least, greatest, max_iterations
        self.tried = range(least, greatest + 1) if least < greatest else range(0)

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[clips, *grid, dim]` to codes int64 `[clips, *grid, 1]`."""
        return torch.stack([self.cluster(clip).labels.reshape(*clip.shape[:-1], 1) for clip in z])

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Raise InputError: codes have no vectors without the codebook of their clip."""
        raise InputError("codes of k-means have no vectors without the codebook of their clip")

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[clips, *grid, dim]` to `QuantizerOutput`; the gradient reaches them through the clusters' means."""
        codes = self.encode(z.detach())
        empty = z.new_zeros(*self.codebook_sizes, self.dim, dtype=torch.float32)
        quantized = []
        for clip, labels in zip(z, codes[..., 0], strict=True):
            means = cluster_means(normalized(clip.float().flatten(0, -2)), labels.flatten(), empty)
            quantized.append(F.embedding(labels, means))
        return QuantizerOutput(torch.stack(quantized).to(z.dtype), codes, {})

    @torch.no_grad()
    def cluster(self, z: Tensor, *, seed: int = 0, starts: Tensor | None = None) -> Clusters:
        """Return the clusters of one clip.

        Args:
            z: latents `[*grid, dim]`.
            seed: seed of the random starts (k-means++).
            starts: int `[fits, greatest]`, numbers of the flattened vectors to start from in place of random ones:
                first for each number of clusters that is tried, in order, then for the fit that gives the codes. Of
                each row, as many are read as there are clusters.

        Raises:
            InputError: latents, or starts of another shape or out of range.
        """
        with without_autocast(z):
            rows = normalized(self.check_latent(z).flatten(0, -2))
            generator = torch.Generator().manual_seed(seed)

            def fit(place: int, number: int) -> tuple[Tensor, Tensor]:
                if starts is None:
                    start = draw_start(rows, number, generator)
                else:
                    start = self._start(starts, place, number, len(rows)).to(rows.device)
                return k_means(rows, rows[start], self.max_iterations)

            distortions = rows.new_empty(len(self.tried))
            for place, number in enumerate(self.tried):
                labels, centroids = fit(place, number)
                distortions[place] = (rows - centroids[labels]).square().sum()
            chosen = self.least
            if self.tried:
                chosen = max(chosen, int(distortions.diff(n=2).argmax()) + 4)
            labels, centroids = fit(len(self.tried), chosen)
            codebook = cluster_means(rows, labels, torch.zeros_like(centroids))
            return Clusters(labels, centroids, codebook, distortions)

    def _start(self, starts: Tensor, place: int, number: int, rows: int) -> Tensor:
        """Return the given start of a fit; InputError unless it is one for so many rows."""
        shape = [len(self.tried) + 1, self.greatest]
        if not isinstance(starts, Tensor) or starts.is_floating_point() or list(starts.shape) != shape:
            got = f"{starts.dtype} {list(starts.shape)}" if isinstance(starts, Tensor) else type(starts).__name__
            raise InputError(f"expected starts of a clip as integers {shape}, got {got}")
        start = starts[place, :number].long()
        low, high = (int(bound) for bound in start.aminmax())
        if low < 0 or high >= rows:
            raise InputError(f"expected starts of {number} clusters from 0 to {rows - 1}, got {low} to {high}")
        return start


def normalized(vectors: Tensor) -> Tensor:
    """Return vectors `[..., dim]` with length 1; those of length 0 stay as they are."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)


def draw_start(rows: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Return the numbers of some of the rows `[N, dim]`, drawn on the CPU; the farther from the others, the likelier.

    Raises:
        InputError: fewer rows than that.
    """
    if len(rows) < number:
        raise InputError(f"expected a clip of at least {number} features, got {len(rows)}")
    drawn = [int(torch.randint(len(rows), (1,), generator=generator))]
    lengths = rows.square().sum(dim=1)
    nearest = torch.full_like(lengths, torch.inf)
    while len(drawn) < number:
        last = rows[drawn[-1]]
        nearest = torch.minimum(nearest, lengths + last.square().sum() - 2 * (rows @ last))
        chances = nearest.clamp(min=0) + SPREAD
        drawn.append(int(torch.multinomial(chances.cpu(), 1, generator=generator)))
    return torch.tensor(drawn, device=rows.device)


def k_means(rows: Tensor, centroids: Tensor, max_iterations: int) -> tuple[Tensor, Tensor]:
    """Return the cluster of each row `[N, dim]`, and the centroids `[K, dim]`; an empty cluster keeps its own."""
    for _ in range(max_iterations):
        labels = (rows @ normalized(centroids).mT).argmax(dim=1)
        means = cluster_means(rows, labels, centroids)
        if (means - centroids).norm() < TOLERANCE:
            break
        centroids = means
    return labels, centroids


def cluster_means(rows: Tensor, labels: Tensor, empty: Tensor) -> Tensor:
    """Return the mean row of each cluster, `[K, dim]`; for a cluster without rows, what `empty` `[K, dim]` has."""
    members = F.one_hot(labels, len(empty)).to(rows)  # unlike an indexed sum, a product adds in one order on a GPU too
    counts = members.sum(dim=0)[:, None]
    return torch.where(counts > 0, members.mT @ rows / counts.clamp(min=1), empty)
