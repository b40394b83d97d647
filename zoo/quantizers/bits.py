"""Sign vectors, the integers that name them, and the entropy of their soft assignment.

For codewords that are all sign vectors of b bits, the softmax over codewords of 2<h, c>/T factorises over bits:
P(bit = +1) = sigmoid(4h/T). So the entropy of one vector's assignment is a sum over bits, and the mean assignment
of many vectors is a product of two matrices, one for the lower and one for the upper half of the bits: nothing of
the size vectors × 2^b ever exists.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def bits_to_codes(bits: Tensor) -> Tensor:
    """Bool `[..., bits]` to int64 `[...]`, the first bit the least significant."""
    return (bits.long() << torch.arange(bits.shape[-1], device=bits.device)).sum(dim=-1)


def codes_to_signs(codes: Tensor, num_bits: int) -> Tensor:
    """Int64 `[...]` to float32 `[..., num_bits]` of -1 and +1, the first the least significant bit."""
    bits = (codes[..., None] >> torch.arange(num_bits, device=codes.device)) & 1
    return (2 * bits - 1).float()


def mean_assignment_entropy(logits: Tensor) -> Tensor:
    """Mean over vectors of the entropy of each one's distribution over codes, in nats.

    Args:
        logits: float32 `[vectors, bits]`, log-odds of each bit.
    """
    size = logits.abs()
    entropy = functional.softplus(-size) + size * torch.sigmoid(-size)
    return entropy.sum(dim=-1).mean()


def mean_distribution(logits: Tensor, *, chunk: int = 4096) -> Tensor:
    """Mean over vectors of the distributions over codes.

    Args:
        logits: float32 `[vectors, bits]`, log-odds of each bit, the first bit the least significant.
        chunk: vectors at a time; recomputed in the backward pass, so that memory grows with it only.

    Returns:
        float32 `[2^bits]`.
    """
    pieces = logits.split(chunk)
    if len(pieces) == 1:
        total = summed_distribution(logits)
    else:
        total = sum(checkpoint(summed_distribution, piece, use_reentrant=False) for piece in pieces)
    return total.flatten() / len(logits)


def summed_distribution(logits: Tensor) -> Tensor:
    """Sum over vectors `[vectors, bits]` of the distributions over codes, `[2^upper bits, 2^lower bits]`."""
    lower = logits.shape[-1] // 2
    return product_distribution(logits[:, lower:]).T @ product_distribution(logits[:, :lower])


def product_distribution(logits: Tensor) -> Tensor:
    """Log-odds `[vectors, bits]` to the distribution over codes of each vector, `[vectors, 2^bits]`."""
    probability = logits.new_ones(len(logits), 1)
    for one, zero in zip(torch.sigmoid(logits).unbind(-1), torch.sigmoid(-logits).unbind(-1), strict=True):
        probability = torch.cat([probability * zero[:, None], probability * one[:, None]], dim=1)
    return probability


def distribution_entropy(probability: Tensor) -> Tensor:
    """-Σ p log(p + 1e-5), as the LFQ papers' code has it."""
    return -(probability * torch.log(probability + 1e-5)).sum()
