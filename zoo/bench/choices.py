"""What a benchmark has to do: its tokenizers and its metrics, and which of them are not available."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zoo.bench.candidates import Candidate, LazyTokenizer
from zoo.bench.signals import plain_spec
from zoo.errors import InputError, UnknownTokenizerError, ZooError
from zoo.metrics import METRICS, Metric
from zoo.spec import TokenizerSpec

Reasons = dict[str, str]


def chosen_tokenizers(
    names: Sequence[str | Path], device: str, num_codebooks: Sequence[int] | None, portable: Callable[[str], str]
) -> tuple[dict[str, LazyTokenizer], Reasons]:
    """Return tokenizers by the name of their method, and those that are not available, with the reason.

    Args:
        names, device, num_codebooks: as `zoo.bench` takes them.
        portable: removes the folders of this machine from a text.

    Raises:
        UnknownTokenizerError: a name that is not in the registry.
        As `zoo.load`, if there are names and none of them is available.
    """
    found: dict[str, LazyTokenizer] = {}
    reasons: Reasons = {}
    errors: list[ZooError] = []
    for name in dict.fromkeys(map(str, names)):
        try:
            lazy = LazyTokenizer(name, device, num_codebooks)
        except UnknownTokenizerError:
            raise
        except ZooError as error:
            reasons[portable(name)] = portable(str(error))
            errors.append(error)
            continue
        same = found.get(lazy.spec.name)
        if same is None:
            found[lazy.spec.name] = lazy
        elif same.weights_sha256 != lazy.weights_sha256 or same.network_sha256 != lazy.network_sha256:
            found[portable(name)] = lazy
    if errors and not found:
        raise errors[0]
    return found, reasons


def chosen_metrics(
    modality: str, names: Sequence[str] | None, own: Mapping[str, Metric], portable: Callable[[str], str]
) -> tuple[dict[str, Metric], Reasons]:
    """Return metrics by name, and those that are not available by their label, with the reason.

    Args:
        modality: the files' modality.
        names: names in `zoo.metrics.METRICS`; None: all.
        own: metrics of one's own, which come after them.
        portable: removes the folders of this machine from a text.

    Raises:
        InputError: an unknown name, or a metric of one's own that is called as one of zoo's.
    """
    known = METRICS[modality]
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"unknown {modality} metric {unknown[0]!r}; there are {', '.join(known)}")
    if same := [name for name in own if name in known]:
        raise InputError(f"zoo already has a metric called {same[0]!r}; give yours another name")
    wanted = {name: known[name] for name in (known if names is None else dict.fromkeys(names))} | dict(own)
    missing = {name: metric.missing() for name, metric in wanted.items()}
    reasons = {wanted[name].label: portable(reason) for name, reason in missing.items() if reason is not None}
    return {name: metric for name, metric in wanted.items() if missing[name] is None}, reasons


def spec_of(candidate: Candidate) -> TokenizerSpec:
    """Return what a candidate of one's own takes."""
    channels = None if candidate.sample_rate is None else candidate.channels
    return plain_spec(candidate.modality, name=candidate.method, sample_rate=candidate.sample_rate, channels=channels)
