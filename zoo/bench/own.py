"""Candidates and metrics of one's own, by name: `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from zoo.bench.candidates import Candidate
from zoo.errors import InputError
from zoo.metrics import Metric


def own_candidates(given: Sequence[str | Candidate]) -> list[Candidate]:
    """Return candidates of one's own.

    Args:
        given: `Candidate` objects, or names `package.module:name` of one, of a subclass that takes no arguments, or of
            a function without arguments that returns one or several, such as a method at every setting.

    Raises:
        InputError: a name that cannot be imported, an object that is no such thing, or a candidate without a modality.
    """
    candidates: list[Candidate] = []
    for one in given:
        made = imported(one) if isinstance(one, str) else one
        if inspect.isclass(made) or inspect.isfunction(made):
            made = made()
        for candidate in made if isinstance(made, list | tuple) else [made]:
            if not isinstance(candidate, Candidate):
                raise InputError(f"{one}: expected a zoo.bench.Candidate, got {type(candidate).__name__}")
            if not hasattr(candidate, "modality"):
                raise InputError(f"{one}: expected a modality, such as modality = 'image' in the class, got none")
            candidates.append(candidate)
    return candidates


def named_metrics(given: Sequence[str | Metric]) -> dict[str, Metric]:
    """Return metrics of one's own by name.

    Args:
        given: `zoo.metrics.Metric` objects, or names `package.module:name` of them.

    Raises:
        InputError: a name that cannot be imported, an object that is no metric, or two of the same name.
    """
    metrics: dict[str, Metric] = {}
    for one in given:
        metric = imported(one) if isinstance(one, str) else one
        if not isinstance(metric, Metric):
            raise InputError(f"{one}: expected a zoo.metrics.Metric, got {type(metric).__name__}")
        if metric.name in metrics:
            raise InputError(f"two metrics are called {metric.name!r}; give them different names")
        metrics[metric.name] = metric
    return metrics


def imported(name: str) -> Any:
    """Return the object that `package.module:name` names; modules in the working folder are found as well.

    Raises:
        InputError: a name of another form, no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"expected package.module:name, got {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that this one imports
        raise InputError(f"{name}: no module {error.name!r} in the working folder or among the installed") from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        public = ", ".join(known for known in vars(found) if not known.startswith("_"))
        raise InputError(f"{name}: no {attribute!r} in {module}; it has {public}")
    return getattr(found, attribute)
