"""Entropies of soft assignments to codebooks, in memory that does not grow with vectors × codes.

For the codebook of all sign vectors, the softmax over codes is a product over channels. So the entropy of one
vector's assignment is a sum over channels, and the mean assignment of many vectors is one matrix product between
the distributions over the lower and over the upper half of the channels: no tensor of the size vectors × codes
ever exists. Those are summed over chunks of vectors, which are computed again in the backward pass. A learned codebook
has no such structure: its softmax is summed tile by tile (`zoo.quantizers.soft_assignment`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from zoo.quantizers import soft_assignment
from zoo.quantizers.base import without_autocast

MAX_ENUMERATED_BITS = 20  # a histogram of 4 MiB


def sign_entropy_loss(logits: Tensor, *, chunk: int = 4096) -> Tensor:
    """Return the mean entropy of assignments to sign vectors minus the entropy of their mean (diversity), in nats.

    Beyond `MAX_ENUMERATED_BITS` bits the second term is the sum of the entropies of the bits' mean
    probabilities, an upper bound which is reached where the bits are independent.

    Args:
        logits: float32 `[vectors, bits]`, log-odds of +1 against -1.
        chunk: vectors at a time.
    """
    if logits.shape[-1] > MAX_ENUMERATED_BITS:
        return marginal_sign_entropy_loss(logits)
    total = SumOverChunks.apply(sum_sign_assignment, chunk, logits) / len(logits)
    return total[0] - published_entropy(total[1:])


def marginal_sign_entropy_loss(logits: Tensor) -> Tensor:
    """Return `sign_entropy_loss` with the sum of the entropies of the bits' mean probabilities as its second term."""
    mean = torch.stack([torch.sigmoid(logits).mean(dim=0), torch.sigmoid(-logits).mean(dim=0)])
    return sum_sign_entropy(logits) / len(logits) - published_entropy(mean)


def codebook_entropy_loss(z: Tensor, codebook: Tensor, *, scale: float) -> Tensor:
    """Return the mean over vectors of H(p) minus H(mean of p), the diversity, in nats; p = softmax(scale × z·e).

    For unit vectors and squared distances at temperature T, scale is 2 / T.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        scale: factor of the logits.
    """
    with without_autocast(z):
        vectors = scale * z.reshape(-1, z.shape[-1]).float()
        entropy, probability = SumOverAssignments.apply(vectors, codebook.float())
        return difference_of_entropies(entropy, probability, len(vectors))


def difference_of_entropies(entropy: Tensor, probability: Tensor, vectors: int) -> Tensor:
    """Return the mean entropy minus the entropy of the mean, from sums over so many vectors."""
    return entropy / vectors - published_entropy(probability / vectors)


def sum_sign_assignment(logits: Tensor) -> Tensor:
    """Return sums over vectors of H(p), and of p: log-odds `[vectors, bits]` to `[1 + 2^bits]`."""
    upper, lower = logits[:, logits.shape[1] // 2 :], logits[:, : logits.shape[1] // 2]
    distribution = sign_distribution(upper).T @ sign_distribution(lower)
    return torch.cat([sum_sign_entropy(logits)[None], distribution.flatten()])


def sum_sign_entropy(logits: Tensor) -> Tensor:
    """Return the sum over vectors of H(p) of log-odds `[vectors, bits]`."""
    size = logits.abs()
    return (functional.softplus(-size) + size * torch.sigmoid(-size)).sum()


def sign_distribution(logits: Tensor) -> Tensor:
    """Return p of each vector: log-odds `[vectors, bits]` to `[vectors, 2^bits]`, the first bit least significant."""
    distribution = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(dim=1):
        zero, one = torch.sigmoid(-bit)[:, None], torch.sigmoid(bit)[:, None]
        distribution = torch.cat([distribution * zero, distribution * one], dim=1)
    return distribution


def published_entropy(probability: Tensor) -> Tensor:
    """Return -Σ p log(p + 1e-5), as in the published code."""
    return -(probability * torch.log(probability + 1e-5)).sum()


class SumOverChunks(torch.autograd.Function):
    """Sum of `function(chunk of the vectors, *others)` over chunks, each computed again in the backward pass.

    (`torch.utils.checkpoint` does the same, but its first call imports the compiler, which takes seconds.)
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], chunk: int, vectors: Tensor, *others: Tensor) -> Tensor:
        ctx.function, ctx.chunk = function, chunk
        ctx.save_for_backward(vectors, *others)
        return reduce(torch.add, [function(piece, *others) for piece in vectors.split(chunk)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, *others = (tensor.detach() for tensor in ctx.saved_tensors)
        vectors_gradient = torch.empty_like(vectors)
        others_gradients = [torch.zeros_like(other) for other in others]
        with without_autocast(gradient), torch.enable_grad():
            for piece, target in zip(vectors.split(ctx.chunk), vectors_gradient.split(ctx.chunk), strict=True):
                inputs = [tensor.detach().requires_grad_() for tensor in (piece, *others)]
                result, *rest = torch.autograd.grad((ctx.function(*inputs) * gradient).sum(), inputs)
                target.copy_(result)
                for total, part in zip(others_gradients, rest, strict=True):
                    total.add_(part)
        return None, None, vectors_gradient, *others_gradients


class SumOverAssignments(torch.autograd.Function):
    """Sums over vectors `[vectors, dim]`: of the entropy of their softmax over `[rows, dim]`, and of the softmax."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        normalizer = soft_assignment.normalizers(vectors, rows)
        ctx.save_for_backward(vectors, rows, normalizer)
        return soft_assignment.sums(vectors, rows, normalizer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_entropy: Tensor, of_probability: Tensor) -> tuple[Tensor, Tensor]:
        vectors, rows, normalizer = ctx.saved_tensors
        gradients = torch.zeros_like(vectors), torch.zeros_like(rows)
        with without_autocast(vectors):
            add_entropy_gradients(vectors, rows, normalizer, of_entropy, of_probability, *gradients)
        return gradients


def add_entropy_gradients(
    vectors: Tensor,
    rows: Tensor,
    normalizer: Tensor,
    of_entropy: Tensor,
    of_probability: Tensor,
    to_vectors: Tensor,
    to_rows: Tensor,
) -> None:
    """Add the gradients of `SumOverAssignments`, given those of its sums, to `to_vectors` and `to_rows`."""

    def values(v: slice, r: slice, logarithm: Tensor) -> Tensor:
        return torch.addcmul(of_probability[r], logarithm, of_entropy, value=-1)

    soft_assignment.add_gradients(vectors, rows, normalizer, values, to_vectors, to_rows)
