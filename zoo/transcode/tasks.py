"""The outputs to make from files of signals, and those that were made before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import modalities
from zoo.errors import InputError, as_zoo_error
from zoo.tokenizer import Tokenizer
from zoo.transcode.paths import Outputs, find_sources
from zoo.transcode.results import FileResult


@dataclass(frozen=True)
class Task:
    """One output to make.

    options: options that `modality.load` takes. encode_options: options that `Tokenizer.encode` takes.
    recorded: those of both that were asked for and change the codes, by name.
    """

    source: Path
    target: Path
    options: dict[str, Any]
    encode_options: dict[str, Any]
    recorded: dict[str, Any]


class Tasks:
    """Outputs to make from files of signals, in their order. An existing output and an error are results.

    Args:
        suffix: suffix of the outputs. file_suffixes: suffixes by which `out` is taken as a file, not a folder.
        given: options of `preprocess`, None where not asked for. encode_options: those of `encode`.
        all_chains: whether each chain of a structure file is a task.
        overwrite: whether existing outputs are made again.
        codes_shape_of: called for a task whose output exists; ZooError unless the task would make the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        inputs: Any,
        out: str | Path,
        *,
        suffix: str,
        file_suffixes: tuple[str, ...],
        given: Mapping[str, Any],
        encode_options: Mapping[str, Any],
        all_chains: bool,
        overwrite: bool,
        codes_shape_of: Callable[[Task], tuple[int, ...] | None],
    ):
        self._modality, self._suffix, self._overwrite = tokenizer.modality, suffix, overwrite
        self._codes_shape_of = codes_shape_of
        self._options = tokenizer.file_options(**given)
        self._encode_options = dict(encode_options)
        self._recorded = {name: value for name, value in given.items() if value is not None} | self._encode_options
        if self._recorded.get("resample"):  # the default
            del self._recorded["resample"]
        self._sources = find_sources(inputs, lambda path: modalities.media_files(path, tokenizer.spec.modality))
        self._outputs = Outputs(self._sources, Path(out), file_suffixes)
        self._all_chains = all_chains
        if all_chains:
            self._check_all_chains(tokenizer)

    @property
    def sources(self) -> list[Path]:
        """The files, each of which gives one task, or one for each of its chains."""
        return [source for source, _ in self._sources]

    def __iter__(self) -> Iterator[Task | FileResult]:
        for source, relative in self._sources:
            try:
                chains = self._modality.chains(source) if self._all_chains else (None,)
            except Exception as error:
                yield FileResult(source, error=as_zoo_error(error))
                continue
            for chain in chains:
                try:
                    yield self._task(source, relative, chain)
                except Exception as error:
                    yield FileResult(source, error=as_zoo_error(error))

    def _task(self, source: Path, relative: Path, chain: str | None) -> Task | FileResult:
        extra = {} if chain is None else {"chain": chain}
        target = self._outputs.claim(source, relative, self._suffix, part=chain)
        task = Task(source, target, self._options | extra, self._encode_options, self._recorded | extra)
        if self._overwrite or not target.exists():
            return task
        return FileResult(source, target, self._codes_shape_of(task), done_before=True)

    def _check_all_chains(self, tokenizer: Tokenizer) -> None:
        if "chain" not in self._modality.options:
            raise InputError(f"{tokenizer.spec.name} takes {self._modality.noun[1]}, which have no chains")
        if "chain" in self._options:
            raise InputError("expected chain= or all_chains=, got both")
        if self._outputs.is_file:
            raise InputError(f"{self._outputs.out}: is one file, but each chain needs a file; name a folder")
