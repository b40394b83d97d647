"""What a benchmark has to do: tokenizers, preprocessing and metrics, and which of them are not available."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.bench.candidates import Candidate, LazyTokenizer
from zoo.bench.protocols import Protocol
from zoo.bench.signals import Preprocessing, plain_spec
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


def wanted_metrics(
    modality: str, names: Sequence[str] | None, own: Mapping[str, Metric], protocol: Protocol | None
) -> dict[str, Metric]:
    """Return metrics by name.

    Args:
        modality: the files' modality.
        names: names in `zoo.metrics.METRICS`; None: those of the protocol, or all.
        own: metrics of one's own, which come after them.
        protocol: sets metrics and their settings.

    Raises:
        InputError: an unknown name, or a metric of one's own that is called as one of zoo's.
    """
    known = METRICS[modality] if protocol is None else protocol.chosen_metrics()
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"unknown {modality} metric {unknown[0]!r}; there are {', '.join(known)}")
    if same := [name for name in own if name in known]:
        raise InputError(f"zoo already has a metric called {same[0]!r}; give yours another name")
    return {name: known[name] for name in (known if names is None else dict.fromkeys(names))} | dict(own)


def available_metrics(
    wanted: Mapping[str, Metric], portable: Callable[[str], str]
) -> tuple[dict[str, Metric], Reasons]:
    """Return the metrics that this machine can compute, and the others by their label, with the reason."""
    missing = {name: metric.missing() for name, metric in wanted.items()}
    reasons = {wanted[name].label: portable(reason) for name, reason in missing.items() if reason is not None}
    return {name: metric for name, metric in wanted.items() if missing[name] is None}, reasons


def chosen_preprocessing(
    specs: Sequence[TokenizerSpec], protocol: Protocol | None, options: Mapping[str, Any]
) -> Preprocessing:
    """Return the form of the files that suits all specs, as the options or the protocol set it.

    Raises:
        InputError: options beside a protocol, a protocol of another modality, or as `Preprocessing.of`.
    """
    if protocol is None:
        return Preprocessing.of(specs, options)
    if given := [name for name, value in options.items() if value is not None]:
        raise InputError(f"the protocol {protocol.name} has its own settings, got {given[0]}={options[given[0]]}")
    if other := next((spec for spec in specs if spec.modality != protocol.modality), None):
        raise InputError(f"the protocol {protocol.name} is for {protocol.modality}, {other.name} for {other.modality}")
    return Preprocessing.of(specs, protocol.preprocessing)


def spec_of(candidate: Candidate) -> TokenizerSpec:
    """Return what a candidate of one's own takes."""
    channels = None if candidate.sample_rate is None else candidate.channels
    return plain_spec(candidate.modality, name=candidate.method, sample_rate=candidate.sample_rate, channels=channels)
