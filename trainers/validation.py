"""Reconstruction metrics and codebook health of a tokenizer on fixed excerpts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.metrics import mel_distance, psnr, ssim, stoi
from zoo.tokenizer import Tokenizer, TokenizerSpec
from zoo.trainers.data import to_signal


@dataclass(frozen=True)
class ValidationResult:
    """What a tokenizer makes of the excerpts.

    metrics: means by name, of `zoo.metrics` and `codebook_health`.
    collapsed: whether a codebook has less than 5 % of its entries in use, of those that so few codes could use.
    originals, reconstructions: of the first excerpts, in the public layout.
    """

    metrics: dict[str, float]
    collapsed: bool
    originals: Tensor
    reconstructions: Tensor


@torch.no_grad()
def validate(tokenizer: Tokenizer, batches: Iterable[Tensor], examples: int) -> ValidationResult:
    """Encode and decode batches of excerpts (as `zoo.trainers.data` gives them) with a tokenizer in eval mode."""
    codes, values, originals, reconstructions = [], {}, [], []
    for batch in batches:
        original = to_signal(batch.to(tokenizer.device))
        found = tokenizer.encode(original)
        reconstruction = tokenizer.decode(found, size=tuple(original.shape[2:]))
        codes.append(found.cpu())
        for name, value in signal_metrics(reconstruction, original, tokenizer.spec).items():
            values.setdefault(name, []).append(value.cpu())
        if not originals or sum(map(len, originals)) < examples:
            originals.append(original.cpu())
            reconstructions.append(reconstruction.cpu())
    metrics = {name: float(torch.cat(parts).nanmean()) for name, parts in values.items()}
    return ValidationResult(
        metrics | codebook_health(torch.cat(codes), tokenizer.spec.codebook_sizes),
        has_collapsed(torch.cat(codes), tokenizer.spec.codebook_sizes),
        torch.cat(originals)[:examples],
        torch.cat(reconstructions)[:examples],
    )


def signal_metrics(reconstruction: Tensor, original: Tensor, spec: TokenizerSpec) -> dict[str, Tensor]:
    """Each metric as `[B]`; NaN where it is not defined."""
    if spec.modality == "image":
        return {"psnr": psnr(reconstruction, original), "ssim": ssim(reconstruction, original)}
    return {
        "mel_distance": mel_distance(reconstruction, original, spec.sample_rate),
        "stoi": stoi(reconstruction, original, spec.sample_rate),
    }


def codebook_health(codes: Tensor, codebook_sizes: tuple[int, ...]) -> dict[str, float]:
    """How `codes`, int64 `[B, num_codebooks, *grid]`, use the codebooks; means over codebooks.

    Returns:
        usage: share of the entries that occur. perplexity: exp of the entropy of their frequencies, the number of
        entries in even use that would be as hard to guess. dead_codes: number of entries that do not occur.
    """
    counts = [part.flatten().unique(return_counts=True)[1] for part in codes.unbind(1)]
    used = torch.tensor([len(part) for part in counts])
    sizes = torch.tensor(codebook_sizes)
    entropies = [torch.special.entr(part / part.sum()).sum() for part in counts]
    return {
        "usage": float((used / sizes).mean()),
        "perplexity": float(torch.stack(entropies).exp().mean()),
        "dead_codes": float((sizes - used).float().mean()),
    }


def has_collapsed(codes: Tensor, codebook_sizes: tuple[int, ...]) -> bool:
    """Whether a codebook has less than 5 % of its entries in use, of those that so few codes could use."""
    return any(
        len(part.unique()) < 0.05 * min(size, part.numel())
        for part, size in zip(codes.unbind(1), codebook_sizes, strict=True)
    )
