"""Paths of the files that are read and of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from zoo.errors import InputError, MediaError

CODE_SUFFIXES = (".npz", ".safetensors")


def code_files(path: Path) -> list[Path]:
    """Return a code file, or those of a folder and its subfolders, sorted; MediaError if there is none."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("[!.]*") if file.suffix in CODE_SUFFIXES and file.is_file())
        if not files:
            raise MediaError(f"{path}: holds no code file ({' '.join(CODE_SUFFIXES)})")
        return files
    if not path.exists():
        raise MediaError(f"{path}: no such file or folder")
    return [path]


def find_sources(inputs: Sequence[str | Path], files_of: Callable[[Path], list[Path]]) -> list[tuple[Path, Path]]:
    """Return every file that `files_of` finds for an input, with its path relative to that input, if it is a folder."""
    return [
        (file, file.relative_to(path) if path.is_dir() else Path(file.name))
        for path in map(Path, inputs)
        for file in files_of(path)
    ]


class Outputs:
    """Paths of the outputs of `sources`; none replaces a source, another output or, without `overwrite`, any file.

    Args:
        sources: as `find_sources` returns them.
        out: folder, or one file if it ends in one of `file_suffixes`.
        file_suffixes: suffixes of outputs.
        overwrite: whether existing files are replaced.
    """

    def __init__(self, sources: list[tuple[Path, Path]], out: Path, file_suffixes: tuple[str, ...], overwrite: bool):
        self.out, self.overwrite = out, overwrite
        self.is_file = out.suffix in file_suffixes and not out.is_dir()
        if self.is_file and len(sources) != 1:
            raise InputError(f"{out}: is one file, but there are {len(sources)} inputs; name a folder")
        self._taken = {source.resolve(): source for source, _ in sources}

    def claim(self, source: Path, relative: Path, suffix: str) -> Path:
        """Return the path to write, in a folder that exists.

        Raises:
            MediaError: the path is taken, or its folder cannot be made.
        """
        target = self.out if self.is_file else self.out / relative.with_suffix(suffix)
        if other := self._taken.get(target.resolve()):
            raise MediaError(f"{source}: would be written to {target}, which belongs to {other}")
        if target.exists() and not self.overwrite:
            raise MediaError(f"{target}: exists already, and overwrite is not set")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{target.parent}: cannot be made: {error.strerror}") from error
        self._taken[target.resolve()] = source
        return target
