"""Validation: metrics of `zoo.metrics` and statistics of the codes of a tokenizer on fixed excerpts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torchmetrics
from torch import Tensor

from zoo import modalities
from zoo.errors import InputError, as_zoo_error
from zoo.metrics import METRICS, Metric
from zoo.metrics.codes import MAX_COUNTS, CodeStatistics, CodeSummary
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.trainers.data.batches import to_signal
from zoo.trainers.recipe import Validation

LEAST_USAGE = 0.05


@dataclass(frozen=True)
class ValidationResult:
    """Result of a tokenizer on the excerpts.

    metrics: values by name: metrics of `zoo.metrics` and `codebook_health`.
    warning: advice if a codebook has collapsed, that is, if it uses less than 5 % of its entries (or of the number of
        codes, if there are fewer codes than entries); None: no codebook has collapsed.
    originals, reconstructions: the first excerpts, each in the public layout without the batch axis.
    """

    metrics: dict[str, float]
    warning: str | None
    originals: list[Tensor]
    reconstructions: list[Tensor]


def choose_metrics(options: Validation, tokenizer: Tokenizer) -> list[Metric]:
    """The metrics that a recipe asks for; none of a tokenizer that does not decode to a signal.

    Raises:
        InputError: an unknown name, or a metric that needs a package or weights that this machine does not have.
    """
    modality, decodes = tokenizer.spec.modality, tokenizer.encode_only is None
    known = METRICS[modality]
    names = options.metrics or (modalities.get(modality).validation_metrics if decodes else ())
    if names and not decodes:
        raise InputError(f"recipe: {tokenizer.spec.name} decodes to no signal that {', '.join(names)} could measure")
    for name in names:
        if name not in known:
            raise InputError(f"recipe: unknown metric {name!r} for {modality}; there are {', '.join(known)}")
        reason = known[name].missing()
        if reason is not None:
            raise InputError(f"recipe: validation.metrics: {name} {reason}")
    if options.best is not None and options.best not in names:
        raise InputError(
            f"recipe: expected validation.best among {', '.join(names) or 'no metrics'}, got {options.best!r}"
        )
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

    Of a tokenizer that does not decode to a signal, there are statistics of the codes alone. A metric that fails, with
    whatever error its library raises, is left out with a warning.

    Args:
        tokenizer: in eval mode. batches: as `zoo.trainers.data.batches.validation_batches` makes them.
        metrics: as `choose_metrics` returns them.
        examples: how many of the first excerpts the result holds.
        quantizer_losses: names of the terms that its quantizer returns in training, for the warning.
    """
    spec = tokenizer.spec
    modality = modalities.get(spec.modality)
    figures = {metric.name: metric.streaming(spec).to(tokenizer.device) for metric in metrics}
    # Counts of all codebooks' entries; pairs of codebooks are not counted if they take more than these.
    statistics = CodeStatistics(spec.codebook_sizes, longest=1, max_counts=min(MAX_COUNTS, sum(spec.codebook_sizes)))
    for figure in (*figures.values(), statistics):
        figure.distributed_available_fn = lambda: False
    originals: list[Tensor] = []
    reconstructions: list[Tensor] = []
    for batch in batches:
        original = to_signal(batch.to(tokenizer.device))
        output = tokenizer(original)
        statistics.update(output.codes.cpu())
        if tokenizer.encode_only is not None:
            continue
        reconstruction = modality.finish(output.reconstruction.float())
        original = modality.target(original, spec)
        for name, figure in list(figures.items()):
            with _left_out_if_it_fails(name, figures):
                figure.update(reconstruction, original)
        wanted = examples - len(originals)
        originals += original[:wanted].cpu()
        reconstructions += reconstruction[:wanted].cpu()
    values: dict[str, float] = {}
    for name, figure in list(figures.items()):
        with _left_out_if_it_fails(name, figures):
            values[name] = float(figure.compute())
    summary = statistics.compute()
    return ValidationResult(
        values | codebook_health(summary, spec),
        collapse_warning(summary, spec, quantizer_losses),
        originals,
        reconstructions,
    )


@contextmanager
def _left_out_if_it_fails(name: str, figures: dict[str, torchmetrics.Metric]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        del figures[name]
        warnings.warn(f"validation: {name} is left out, since it cannot be computed: {as_zoo_error(error)}")


def codebook_health(summary: CodeSummary, spec: TokenizerSpec) -> dict[str, float]:
    """Statistics of how the codes use the codebooks: means over the codebooks that were counted; empty without any.

    usage: share of the entries that occur. perplexity: number of equally frequent entries with the same entropy.
    entropy: bits of a code. dead_codes: number of entries that do not occur.
    """
    dead = [
        None if usage is None else (1 - usage) * size
        for usage, size in zip(summary.usage, spec.codebook_sizes, strict=True)
    ]
    named = {"usage": summary.usage, "perplexity": summary.perplexity, "entropy": summary.entropy, "dead_codes": dead}
    counted = {name: [value for value in values if value is not None] for name, values in named.items()}
    return {name: sum(values) / len(values) for name, values in counted.items() if values}


def collapse_warning(summary: CodeSummary, spec: TokenizerSpec, losses: Collection[str]) -> str | None:
    """The warning of a `ValidationResult`. losses: names of the terms that the quantizer returns in training."""
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
