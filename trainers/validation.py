"""Metrics of `zoo.metrics` and statistics of the codes of a tokenizer on fixed excerpts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics import METRICS, Metric
from zoo.metrics.codes import MAX_COUNTS, CodeStatistics, CodeSummary
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.trainers.data import to_signal
from zoo.trainers.recipe import Validation

DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "image": ("psnr", "ssim"),
    "audio": ("mel_distance", "stoi"),
    "video": ("psnr", "ssim", "flicker"),
    "structure": ("ca_rmsd", "tm_score", "lddt"),
}
LEAST_USAGE = 0.05


@dataclass(frozen=True)
class ValidationResult:
    """What a tokenizer makes of the excerpts.

    metrics: by name, those of `zoo.metrics` and `codebook_health`.
    warning: what to try, where a codebook has collapsed: where less than 5 % of its entries are in use, of those that
        so few codes could use; None: none has.
    originals, reconstructions: the first excerpts, each in the public layout without the batch.
    """

    metrics: dict[str, float]
    warning: str | None
    originals: list[Tensor]
    reconstructions: list[Tensor]


def choose_metrics(options: Validation, modality: str) -> list[Metric]:
    """The metrics that a recipe asks for.

    Raises:
        InputError: a name that there is not, or a metric that lacks something on this machine.
    """
    known, names = METRICS[modality], options.metrics or DEFAULT_METRICS[modality]
    for name in names:
        if name not in known:
            raise InputError(f"recipe: unknown metric {name!r} of {modality}; there are {', '.join(known)}")
        reason = known[name].missing()
        if reason is not None:
            raise InputError(f"recipe: validation.metrics: {name} {reason}")
    if options.best is not None and options.best not in names:
        raise InputError(f"recipe: expected validation.best among {', '.join(names)}, got {options.best!r}")
    return [known[name] for name in names]


@torch.no_grad()
def validate(
    tokenizer: Tokenizer,
    batches: Iterable[Tensor],
    metrics: Sequence[Metric],
    *,
    examples: int = 0,
    quantizer_losses: Collection[str] = (),
) -> ValidationResult:
    """Encode and decode batches of excerpts, in one process.

    Args:
        tokenizer: in eval mode. batches: as `zoo.trainers.data` gives them. metrics: as `choose_metrics` gives them.
        examples: how many of the first excerpts the result holds.
        quantizer_losses: names of the terms that its quantizer gives in training, for the warning.
    """
    spec = tokenizer.spec
    figures = {metric.name: metric.streaming(spec).to(tokenizer.device) for metric in metrics}
    # Entries of all codebooks, and of pairs of codebooks none that take more than them.
    statistics = CodeStatistics(spec.codebook_sizes, longest=1, max_counts=min(MAX_COUNTS, sum(spec.codebook_sizes)))
    for figure in (*figures.values(), statistics):
        figure.distributed_available_fn = lambda: False
    originals, reconstructions = [], []
    for batch in batches:
        original = to_signal(batch.to(tokenizer.device))
        output = tokenizer(original)
        reconstruction = output.reconstruction.float()
        if spec.modality in ("image", "video"):
            reconstruction = reconstruction.clamp(0, 1)
        for figure in figures.values():
            figure.update(reconstruction, original)
        statistics.update(output.codes.cpu())
        wanted = examples - len(originals)
        originals += original[:wanted].cpu()
        reconstructions += reconstruction[:wanted].cpu()
    summary = statistics.compute()
    return ValidationResult(
        {name: float(figure.compute()) for name, figure in figures.items()} | codebook_health(summary, spec),
        collapse_warning(summary, spec, quantizer_losses),
        originals,
        reconstructions,
    )


def codebook_health(summary: CodeSummary, spec: TokenizerSpec) -> dict[str, float]:
    """How the codes use the codebooks, means over those that were counted; nothing where none was.

    usage: share of the entries that occur. perplexity: entries in even use that would be as hard to guess. entropy:
    bits of a code. dead_codes: number of entries that do not occur.
    """
    dead = [
        None if usage is None else (1 - usage) * size
        for usage, size in zip(summary.usage, spec.codebook_sizes, strict=True)
    ]
    named = {"usage": summary.usage, "perplexity": summary.perplexity, "entropy": summary.entropy, "dead_codes": dead}
    counted = {name: [value for value in values if value is not None] for name, values in named.items()}
    return {name: sum(values) / len(values) for name, values in counted.items() if values}


def collapse_warning(summary: CodeSummary, spec: TokenizerSpec, losses: Collection[str]) -> str | None:
    """What `ValidationResult.warning` says. losses: names of the terms that the quantizer gives."""
    collapsed = [
        f"{number} ({usage:.1%})"
        for number, (usage, size) in enumerate(zip(summary.usage, spec.codebook_sizes, strict=True))
        if usage is not None and usage * size < LEAST_USAGE * min(size, summary.positions)
    ]
    if not collapsed:
        return None
    advice = ["a lower optimizer.learning_rate or a longer optimizer.warmup_steps", "a larger batch_size"]
    if "entropy_loss" in losses:
        advice.insert(0, "a greater losses.entropy_loss")
    elif "codebook_loss" in losses:
        advice.insert(0, "a greater losses.codebook_loss")
    if "commitment_loss" in losses:
        advice.append("another losses.commitment_loss")
    return (
        f"codebook {', '.join(collapsed)} has collapsed: less than {LEAST_USAGE:.0%} of its entries are in use; "
        f"what may help: {', '.join(advice)}, a smaller spec.codebook_sizes"
    )
