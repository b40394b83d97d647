"""Statistics of codes: how evenly codebooks are used, how codes depend on each other, and how steady they are.

Entropies are those of the counted frequencies ("plug-in", maximum likelihood), in bits. Counted over too few tokens,
they come out too low, by about `(occupied - 1) / (2 N ln 2)` bits for N tokens of `occupied` different values (Miller
1955). This is reported beside them as their bias; subtracting it gives the Miller-Madow estimate. Where many values
were seen only once, the bias itself is too small, and the figure means little. The share of such tokens is about the
probability of a value that was not seen yet (Good 1953); one minus it, the coverage, is reported as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torchmetrics
from torch import Tensor

from zoo.codes import flatten
from zoo.errors import InputError
from zoo.tokenizer import Tokenizer

MAX_COUNTS = 2**25  # counts of one kind, 8 bytes each: 256 MiB

Key = TypeVar("Key", bound=Hashable)


class CodeSummary(NamedTuple):
    """The results of `CodeStatistics`: plain numbers, None where something was not counted.

    positions: grid positions counted, each with a token of every codebook.
    usage: for each codebook, the share of its entries that occurred.
    entropy: for each codebook, bits per token, without regard to the tokens before it.
    entropy_bias: about how much too high (negative: too low) `entropy` is; the same for the other two.
    entropy_coverage: about how probable the values are that were seen; the same for pairs and n-grams.
    perplexity: for each codebook, 2 ** entropy: the number of equally frequent entries that are as hard to guess.
    bits_paid: bits per token in a code of fixed length: log2 of a codebook's entries, mean over codebooks.
    bits_used: bits per token in an ideal code for the frequencies: mean of `entropy`.
    mutual_information: `[codebook][codebook]`, bits that the codes of two codebooks at one position share; the
        diagonal holds the entropy.
    conditional_entropy: `[n - 1][codebook]`, bits of the next token in raster order given the n - 1 before it; for
        n = 1 the entropy.
    refused: a sentence for everything that was not counted.
    """

    positions: int
    usage: list[float | None]
    entropy: list[float | None]
    entropy_bias: list[float | None]
    entropy_coverage: list[float | None]
    perplexity: list[float | None]
    bits_paid: float
    bits_used: float | None
    mutual_information: list[list[float | None]]
    mutual_information_bias: list[list[float | None]]
    mutual_information_coverage: list[list[float | None]]
    conditional_entropy: list[list[float | None]]
    conditional_entropy_bias: list[list[float | None]]
    conditional_entropy_coverage: list[list[float | None]]
    refused: list[str]


class CodeStatistics(torchmetrics.Metric):
    """Statistics of the codes of any number of signals, in memory that does not grow with their number.

    Everything is counted in full, in tables of fixed size, so the figures are exact and do not depend on batches:
    counts of each codebook's entries, of pairs of entries of two codebooks at one position, and of n-grams, which are
    runs of n tokens of one codebook in raster order (audio: in time) within an item. Merging adds the tables.

    The tables of one kind hold at most `max_counts` counts together. Codebooks and n-grams are counted in order, and
    pairs nearest first; what no longer fits is None in the summary, with the reason in `refused`.
    By default, codebooks of up to 2 ** 25 entries have an entropy, and those of up to 5,792 entries bigrams.

    Args:
        codebook_sizes: entries of each codebook.
        longest: n of the longest n-grams; 1: none.
        max_counts: counts of 8 bytes in the tables of one kind (entries, pairs, n-grams of each n).

    Raises:
        InputError: a size, `longest` or `max_counts` that is not a positive integer.
    """

    full_state_update = False
    positions: Tensor
    entry_counts: Tensor
    pair_counts: Tensor

    def __init__(
        self, codebook_sizes: Sequence[int], *, longest: int = 2, max_counts: int = MAX_COUNTS, **options: Any
    ):
        super().__init__(**options)
        self.sizes = tuple(codebook_sizes)
        if not self.sizes or any(
            not isinstance(number, int) or number < 1 for number in (*self.sizes, longest, max_counts)
        ):
            raise InputError(
                "expected codebook_sizes, longest and max_counts as positive integers, "
                f"got {self.sizes}, {longest!r} and {max_counts!r}"
            )
        self.longest = longest
        codebooks = range(len(self.sizes))
        pairs = sorted(combinations(codebooks, 2), key=lambda pair: pair[1] - pair[0])
        self.entries = _Tables({k: self.sizes[k] for k in codebooks}, max_counts)
        self.pairs = _Tables({(k, m): self.sizes[k] * self.sizes[m] for k, m in pairs}, max_counts)
        self.grams = {n: _Tables({k: self.sizes[k] ** n for k in codebooks}, max_counts) for n in range(2, longest + 1)}
        self.add_state("positions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._add_counts("entry_counts", self.entries)
        self._add_counts("pair_counts", self.pairs)
        for n, tables in self.grams.items():
            self._add_counts(f"gram_{n}_counts", tables)

    def update(self, codes: Tensor, lengths: Tensor | None = None) -> None:
        """Count the codes of a batch.

        Args:
            codes: integers `[B, num_codebooks, *grid]`.
            lengths: int `[B]`, valid positions along the grid's first axis, as `Tokenizer.code_lengths` gives them;
                None: all.

        Raises:
            InputError: shape, dtype or range of the codes or the lengths.
        """
        symbols, valid = self._symbols(codes, lengths)
        self.positions += valid.sum()
        for k in self.entries.starts:
            self.entries.add(self.entry_counts, k, symbols[k][valid])
        for first, second in self.pairs.starts:
            both = symbols[first][valid] * self.sizes[second] + symbols[second][valid]
            self.pairs.add(self.pair_counts, (first, second), both)
        for n, tables in self.grams.items():
            runs = max(0, valid.shape[1] - n + 1)
            for k in tables.starts:
                gram = torch.zeros_like(symbols[k][:, :runs])
                for step in range(n):
                    gram = gram * self.sizes[k] + symbols[k][:, step : step + runs]
                tables.add(getattr(self, f"gram_{n}_counts"), k, gram[valid[:, n - 1 :]])

    def compute(self) -> CodeSummary:
        """Return the statistics of all that was counted so far."""
        counts = {k: self.entries.of(self.entry_counts, k) for k in self.entries.starts}
        single = [_entropy(counts.get(k)) for k in range(len(self.sizes))]
        entropy = [figure.bits for figure in single]
        known = [bits for bits in entropy if bits is not None]
        pairwise = [[self._mutual(k, m, single) for m in range(len(self.sizes))] for k in range(len(self.sizes))]
        sequential = [single, *([self._conditional(n, k) for k in range(len(self.sizes))] for n in self.grams)]
        counted = int(self.positions) > 0
        return CodeSummary(
            positions=int(self.positions),
            usage=[
                int((counts[k] > 0).sum()) / size if counted and k in counts else None
                for k, size in enumerate(self.sizes)
            ],
            entropy=entropy,
            entropy_bias=[figure.bias for figure in single],
            entropy_coverage=[figure.coverage for figure in single],
            perplexity=[None if bits is None else 2**bits for bits in entropy],
            bits_paid=sum(map(math.log2, self.sizes)) / len(self.sizes),
            bits_used=sum(known) / len(self.sizes) if len(known) == len(self.sizes) else None,
            mutual_information=[[figure.bits for figure in row] for row in pairwise],
            mutual_information_bias=[[figure.bias for figure in row] for row in pairwise],
            mutual_information_coverage=[[figure.coverage for figure in row] for row in pairwise],
            conditional_entropy=[[figure.bits for figure in row] for row in sequential],
            conditional_entropy_bias=[[figure.bias for figure in row] for row in sequential],
            conditional_entropy_coverage=[[figure.coverage for figure in row] for row in sequential],
            refused=list(self._refused()),
        )

    def _add_counts(self, name: str, tables: _Tables[Any]) -> None:
        self.add_state(name, torch.zeros(tables.total, dtype=torch.int64), dist_reduce_fx="sum")

    def _symbols(self, codes: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return codes in raster order, `[num_codebooks, B, positions]`, and which are valid, `[B, positions]`."""
        flatten(codes, self.sizes)  # raises what is wrong with the codes
        codes = codes.to(self.positions.device, torch.int64)
        batch, _, steps, *others = codes.shape
        if lengths is None:
            lengths = torch.full((batch,), steps, device=codes.device)
        lengths = torch.as_tensor(lengths)
        if lengths.shape != (batch,) or lengths.is_floating_point() or not 0 < lengths.min() <= lengths.max() <= steps:
            raise InputError(f"expected lengths as {batch} integers from 1 to {steps}, got {lengths.tolist()}")
        valid = torch.arange(steps, device=codes.device) < lengths.to(codes.device)[:, None]
        return codes.flatten(2).movedim(1, 0), valid.repeat_interleave(math.prod(others), dim=1)

    def _mutual(self, first: int, second: int, single: list[_Figure]) -> _Figure:
        if first == second:
            return single[first]
        if first > second:
            first, second = second, first
        if (first, second) not in self.pairs.starts:
            return _Figure()
        table = self.pairs.of(self.pair_counts, (first, second)).reshape(self.sizes[first], self.sizes[second])
        return _entropy(table.sum(dim=1)) + _entropy(table.sum(dim=0)) - _entropy(table)

    def _conditional(self, n: int, k: int) -> _Figure:
        if k not in self.grams[n].starts:
            return _Figure()
        table = self.grams[n].of(getattr(self, f"gram_{n}_counts"), k)
        return _entropy(table) - _entropy(table.reshape(-1, self.sizes[k]).sum(dim=1))

    def _refused(self) -> Iterable[str]:
        kinds: dict[str, _Tables[Any]] = {
            "usage and entropy of codebooks": self.entries,
            "mutual information of pairs of codebooks": self.pairs,
        }
        kinds |= {f"entropy of {n}-grams of codebooks": tables for n, tables in self.grams.items()}
        for kind, tables in kinds.items():
            if tables.refused:
                names = ", ".join(map(str, tables.refused[:8])) + (", …" if len(tables.refused) > 8 else "")
                yield (
                    f"{kind}: {len(tables.refused)} of {len(tables.sizes)} not counted ({names}); "
                    f"all take {tables.wanted:,} counts of 8 bytes, and max_counts is {tables.max_counts:,}"
                )


class _Tables(Generic[Key]):
    """Tables of counts that follow each other in one tensor."""

    def __init__(self, sizes: Mapping[Key, int], max_counts: int):
        self.sizes, self.max_counts, self.wanted = sizes, max_counts, sum(sizes.values())
        self.starts: dict[Key, int] = {}
        self.refused: list[Key] = []
        self.total = 0
        for key, size in sizes.items():
            if self.total + size > max_counts:
                self.refused.append(key)
            else:
                self.starts[key] = self.total
                self.total += size

    def add(self, counts: Tensor, key: Key, values: Tensor) -> None:
        counts.scatter_add_(0, values + self.starts[key], torch.ones_like(values))

    def of(self, counts: Tensor, key: Key) -> Tensor:
        return counts[self.starts[key] : self.starts[key] + self.sizes[key]]


@dataclass(frozen=True)
class _Figure:
    """An entropy in bits, its approximate bias, and the coverage; all None: not counted."""

    bits: float | None = None
    bias: float | None = None
    coverage: float | None = None

    def __add__(self, other: _Figure) -> _Figure:
        return self._with(other, 1)

    def __sub__(self, other: _Figure) -> _Figure:
        return self._with(other, -1)

    def _with(self, other: _Figure, sign: int) -> _Figure:
        if self.bits is None or other.bits is None:
            return _Figure()
        assert self.bias is not None and self.coverage is not None
        assert other.bias is not None and other.coverage is not None
        bits = max(0.0, self.bits + sign * other.bits)
        return _Figure(bits, self.bias + sign * other.bias, min(self.coverage, other.coverage))


def _entropy(counts: Tensor | None) -> _Figure:
    """Return the entropy of a table of counts."""
    if counts is None or not counts.any():
        return _Figure()
    occupied = counts[counts > 0].double()
    total = float(occupied.sum())
    bits = math.log2(total) - float((occupied * occupied.log2()).sum()) / total
    bias = (1 - len(occupied)) / (2 * total * math.log(2))
    return _Figure(max(0.0, bits), bias, 1 - float((occupied == 1).sum()) / total)


# Steadiness


@dataclass(frozen=True)
class Shift:
    """A signal moved along its last axes, with its border repeated in the gap.

    steps: samples, or pixels `(down, right)`, one number for each of the last axes; negative: the other way.
    """

    steps: tuple[int, ...]

    def __call__(self, signal: Tensor) -> Tensor:
        for axis, step in enumerate(self.steps, start=signal.ndim - len(self.steps)):
            sources = torch.arange(signal.shape[axis], device=signal.device) - step
            signal = signal.index_select(axis, sources.clamp(0, signal.shape[axis] - 1))
        return signal


@dataclass(frozen=True)
class Noise:
    """A signal with white Gaussian noise added, the same for each item but for its strength.

    snr: mean square of an item over that of its noise, in dB. seed: random seed of the noise.
    """

    snr: float
    seed: int = 0

    def __call__(self, signal: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(signal.shape[1:], generator=generator).to(signal)
        noise = noise / noise.square().mean().sqrt()
        level = signal.square().flatten(1).mean(dim=1).sqrt() * 10 ** (-self.snr / 20)
        return signal + level.reshape(-1, *[1] * (signal.ndim - 1)) * noise


def token_change(
    tokenizer: Tokenizer, signal: Tensor, perturbation: Callable[[Tensor], Tensor], **options: Any
) -> Tensor:
    """Return the share of the codes that a perturbation of the signal changes.

    Codes are compared position by position, so a shift must be shorter than a grid step.

    Args:
        tokenizer: any tokenizer.
        signal: floating point, in the public layout of `tokenizer.spec.modality`.
        perturbation: `Shift`, `Noise` (not for structures), or any function that returns a signal of the same shape.
            Images and video are clamped to [0, 1] after it.
        options: options of `tokenizer.encode`, except `lengths`.

    Returns:
        float64 `[B, num_codebooks]`, 0 to 1; lower is steadier.

    Raises:
        InputError: as `encode`; a shift of a grid step or more along an axis, or along axes that the signal does not
            have; a perturbed signal of another shape.
    """
    if isinstance(perturbation, Shift):
        _check_shift(perturbation, tokenizer)
    elif isinstance(perturbation, Noise) and not tokenizer.modality.is_sampled:
        raise InputError("Noise is for signals with a level; a structure's coordinates have none")
    codes = tokenizer.encode(signal, **options)
    perturbed = perturbation(signal)
    if perturbed.shape != signal.shape:
        raise InputError(f"expected a perturbed signal of shape {list(signal.shape)}, got {list(perturbed.shape)}")
    perturbed = tokenizer.modality.finish(perturbed)
    return (tokenizer.encode(perturbed, **options) != codes).flatten(2).double().mean(dim=2)


def _check_shift(shift: Shift, tokenizer: Tokenizer) -> None:
    spec = tokenizer.spec
    axes = tokenizer.modality.axes if tokenizer.modality.is_sampled else ()
    if not 0 < len(shift.steps) <= len(axes):
        raise InputError(f"expected a shift of {spec.name}'s last axes ({', '.join(axes)}), got {shift.steps}")
    if not spec.downsample:
        return  # its tokens lie on no grid
    grid_steps = spec.downsample[-len(shift.steps) :]
    if any(abs(step) >= grid_step for step, grid_step in zip(shift.steps, grid_steps, strict=True)):
        raise InputError(
            f"expected a shift of less than {spec.name}'s grid step {grid_steps}, got {shift.steps}: after a longer "
            "one, a position stands for another part of the signal"
        )
