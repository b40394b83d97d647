"""Entropies of soft assignments to codebooks, in memory that does not grow with vectors × codes.

A codebook that is a product of small sets, one per channel (two signs; a few levels), has a softmax over codes
that is a product of softmaxes over channels. So the entropy of one vector's assignment is a sum over channels,
and the mean assignment of many vectors is one matrix product, between the distributions over the lower and over
the upper half of the channels. A learned codebook has no such structure: there, memory is that of a chunk of
vectors, recomputed in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from zoo.quantizers.base import without_autocast

MAX_ENUMERATED_BITS = 20  # a histogram of 4 MiB


def sign_entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the assignments to sign vectors minus the entropy of their mean, in nats.

    Beyond `MAX_ENUMERATED_BITS` bits the second term is the sum of the entropies of the bits' mean
    probabilities, an upper bound which is reached where the bits are independent.

    Args:
        logits: float32 `[vectors, bits]`, log-odds of +1 against -1.
    """
    if logits.shape[-1] > MAX_ENUMERATED_BITS:
        return mean_sign_entropy(logits) - marginal_sign_entropy(logits)
    probability = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=-1)
    mean = mean_distribution(list(probability.unbind(dim=1)))
    return mean_sign_entropy(logits) - published_entropy(mean)


def mean_sign_entropy(logits: Tensor) -> Tensor:
    """Mean over vectors of the entropy of the assignment; log-odds `[vectors, bits]`."""
    size = logits.abs()
    entropy = functional.softplus(-size) + size * torch.sigmoid(-size)
    return entropy.sum(dim=-1).mean()


def marginal_sign_entropy(logits: Tensor) -> Tensor:
    """Sum over bits of the entropy of the bit's mean probability; log-odds `[vectors, bits]`."""
    mean = torch.stack([torch.sigmoid(logits).mean(dim=0), torch.sigmoid(-logits).mean(dim=0)])
    return published_entropy(mean)


def mean_distribution(channels: list[Tensor], *, chunk: int = 4096) -> Tensor:
    """Mean over vectors of their distributions over the codes of a product codebook.

    Args:
        channels: per channel float32 `[vectors, levels]`, its distribution; the first channel is the least
            significant digit of a code.
        chunk: vectors at a time; recomputed in the backward pass, so that memory grows with `chunk` only.

    Returns:
        float32 `[product of levels]`.
    """
    return SumOverChunks.apply(sum_distribution, chunk, len(channels), *channels) / len(channels[0])


def sum_distribution(*channels: Tensor) -> Tensor:
    """As `mean_distribution`, summed over vectors and without chunks."""
    lower = math.ceil(len(channels) / 2)
    if lower == len(channels):
        return channels[0].sum(dim=0)
    return (product_distribution(channels[lower:]).T @ product_distribution(channels[:lower])).flatten()


def product_distribution(channels: tuple[Tensor, ...]) -> Tensor:
    """Distributions per channel, `[vectors, levels]` each, to the distribution over codes `[vectors, codes]`."""
    product = channels[0]
    for channel in channels[1:]:
        product = (channel[:, :, None] * product[:, None, :]).flatten(1)
    return product


def codebook_entropy_loss(z: Tensor, codebook: Tensor, *, scale: float, chunk: int = 512) -> Tensor:
    """Mean over vectors of H(p) minus H(mean of p), with p = softmax over rows of scale × z·e; in nats.

    For unit vectors and squared distances at temperature T this is scale = 2 / T.

    Args:
        z: floating `[..., dim]`.
        codebook: floating `[codebook_size, dim]`.
        scale: of the logits.
        chunk: vectors at a time; recomputed in the backward pass, so that memory grows with
            `chunk` × codebook_size, not with vectors × codebook_size.
    """
    with without_autocast(z):
        vectors, rows = scale * z.reshape(-1, z.shape[-1]).float(), codebook.float()
        total = SumOverChunks.apply(sum_assignment, chunk, 1, vectors, rows) / len(vectors)
        return total[0] - published_entropy(total[1:])


def sum_assignment(vectors: Tensor, rows: Tensor) -> Tensor:
    """Sums over vectors of H(p), and of p: `[1 + codebook_size]`."""
    log_probability = functional.log_softmax(vectors @ rows.T, dim=-1)
    probability = log_probability.exp()
    entropy = -(probability * log_probability).sum()
    return torch.cat([entropy[None], probability.sum(dim=0)])


def published_entropy(probability: Tensor) -> Tensor:
    """-Σ p log(p + 1e-5), as the published code has it."""
    return -(probability * torch.log(probability + 1e-5)).sum()


class SumOverChunks(torch.autograd.Function):
    """Sum of `function(*chunks, *others)` over chunks of the first `num_split` tensors' first axis.

    The backward pass computes each chunk again, so nothing but the tensors themselves is kept for it.
    (`torch.utils.checkpoint` does the same, but imports the compiler at its first call: seconds.)
    """

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], chunk: int, num_split: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.chunk, ctx.num_split = function, chunk, num_split
        ctx.save_for_backward(*tensors)
        pieces = zip(*(tensor.split(chunk) for tensor in tensors[:num_split]), strict=True)
        return sum(function(*piece, *tensors[num_split:]) for piece in pieces)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        gradients = [torch.zeros_like(tensor) for tensor in tensors]
        with without_autocast(gradient), torch.enable_grad():
            for begin in range(0, len(tensors[0]), ctx.chunk):
                rows = slice(begin, begin + ctx.chunk)
                parts = [tensor[rows] if i < ctx.num_split else tensor for i, tensor in enumerate(tensors)]
                totals = [total[rows] if i < ctx.num_split else total for i, total in enumerate(gradients)]
                parts = [part.detach().requires_grad_() for part in parts]
                results = torch.autograd.grad((ctx.function(*parts) * gradient).sum(), parts)
                for total, result in zip(totals, results, strict=True):
                    total += result
        return None, None, None, *gradients
