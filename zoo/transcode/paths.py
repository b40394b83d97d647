"""Paths of the files that are read and of their outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from zoo.codes.files import CODE_SUFFIXES
from zoo.errors import InputError, MediaError, ZooError
from zoo.files import remove_leftovers


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
    """Return every file that `files_of` finds for an input, with its path relative to that input, if it is a folder.

    A file that is named twice, or both by itself and through its folder, is taken once.
    """
    found: dict[tuple[Path, Path], Path] = {}
    for path in map(Path, inputs):
        try:
            for file in files_of(path):
                relative = file.relative_to(path) if path.is_dir() else Path(file.name)
                found.setdefault((file.resolve(), relative), file)
        except ZooError:
            raise
        except OSError as error:  # such as a name that is too long
            raise MediaError(f"{path}: cannot be read: {error.strerror or error}") from error
    return [(file, relative) for (_, relative), file in found.items()]


def output_names(relatives: Iterable[Path]) -> dict[Path, Path]:
    """Return the path of each source's output without its suffix.

    It is the path of the source without its suffix, or with it where two sources would otherwise share an output:
    `same.wav` and `same.flac` keep their suffixes, in whatever order they come.
    """
    names = {relative: relative.with_name(relative.stem) for relative in relatives}
    while True:
        counts = Counter(names.values())
        shared = [relative for relative, name in names.items() if counts[name] > 1 and name != relative]
        if not shared:
            return names
        names |= {relative: relative for relative in shared}


class Outputs:
    """Paths of the outputs of `sources`; none replaces a source or another output.

    Args:
        sources: as `find_sources` returns them.
        out: folder, or one file if it ends in one of `file_suffixes`.
        file_suffixes: suffixes of outputs.
        overwrite: whether existing files are replaced.
    """

    def __init__(self, sources: list[tuple[Path, Path]], out: Path, file_suffixes: tuple[str, ...]):
        self.out = out
        try:
            self.is_file = out.suffix in file_suffixes and not out.is_dir()
        except OSError as error:
            raise MediaError(f"{out}: cannot be written: {error.strerror or error}") from error
        if self.is_file and len(sources) != 1:
            raise InputError(f"{out}: is one file, but there are {len(sources)} inputs; name a folder")
        self._names = output_names(relative for _, relative in sources)
        self._taken = {source.resolve(): source for source, _ in sources}
        self._folders: set[Path] = set()

    def claim(self, source: Path, relative: Path, suffix: str, part: str | None = None) -> Path:
        """Return the path to write; its folder is made, and files that killed runs left there are removed.

        Args:
            part: part of the source, which follows its name after an underscore, as A in `entry_A.npz`.

        Raises:
            MediaError: the path is taken, or its folder cannot be made.
        """
        name = self._names[relative]
        marked = name.name if part is None else f"{name.name}_{quote(part, safe='')}"
        target = self.out if self.is_file else self.out / name.with_name(f"{marked}{suffix}")
        if other := self._taken.get(target.resolve()):
            raise MediaError(f"{source}: would be written to {target}, which belongs to {other}")
        if target.parent not in self._folders:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise MediaError(f"{target.parent}: cannot be made: {error.strerror}") from error
            remove_leftovers(target.parent)
            self._folders.add(target.parent)
        self._taken[target.resolve()] = source
        return target


def check_made_after(target: Path, source: Path) -> None:
    """Raise MediaError unless `target`, which exists, is a file that was written after `source`."""
    if not target.is_file():
        raise MediaError(f"{target}: exists already, and is not a file")
    if target.stat().st_mtime < source.stat().st_mtime:
        raise MediaError(f"{target}: exists already, and is older than {source}; overwrite replaces it")
