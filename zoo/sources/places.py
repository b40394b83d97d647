"""Files and folders on this machine's disks and, by their URL, behind fsspec."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec

from zoo.errors import InputError, MediaError, ZooError, shown
from zoo.files import named_path
from zoo.modalities import MediaBytes, files_below

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder behind fsspec, with the few methods of `pathlib.Path` that sources need.

    Every method but the names raises InputError where the URL's protocol is not known or needs a package that is not
    installed, and MediaError where its store cannot be reached or refuses.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def is_file(self) -> bool:
        return self._kind() == "file"

    def open(self, mode: str = "rb") -> BinaryIO:
        with _errors_of(self.url):
            filesystem, path = fsspec.url_to_fs(self.url)
            file: BinaryIO = filesystem.open(path, mode)
            return file

    def read_bytes(self) -> bytes:
        with _errors_of(self.url):
            filesystem, path = fsspec.url_to_fs(self.url)
            content: bytes = filesystem.cat_file(path)
            return content

    def iterdir(self) -> list[RemotePath]:
        with _errors_of(self.url):
            filesystem, path = fsspec.url_to_fs(self.url)
            return [self._below(path, child) for child in filesystem.ls(path, detail=False) if child != path]

    def files_below(self) -> list[RemotePath]:
        """Return the files in the folder and its subfolders, without hidden ones."""
        with _errors_of(self.url):
            filesystem, path = fsspec.url_to_fs(self.url)
            found = [self._below(path, child) for child in filesystem.find(path)]
        return [file for file in found if not any(part.startswith(".") for part in parts_below(self, file))]

    def _kind(self) -> str | None:
        try:
            with _errors_of(self.url):
                filesystem, path = fsspec.url_to_fs(self.url)
                kind: str = filesystem.info(path)["type"]
                return kind
        except MediaError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _below(self, path: str, child: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{child[len(path.rstrip('/')) :].strip('/')}")


Place = Path | RemotePath


def place_of(data: Any, what: str = "data") -> Place:
    """Return a path on this machine or a URL as a `Place`; InputError, in which `what` names it, for anything else."""
    text = os.fspath(data) if isinstance(data, str | os.PathLike) else ""
    if not isinstance(text, str) or not URL.match(text):
        return named_path(data, what)
    if "::" in text or "\0" in text:
        raise InputError(f"expected {what} as a path or as one URL, got {shown(text)}")
    return Path(text[7:]) if text.startswith("file://") else RemotePath(text)


def is_remote(data: Any) -> bool:
    """Whether a path that a user named is the URL of something behind fsspec."""
    return isinstance(data, str) and bool(URL.match(data)) and not data.startswith("file://")


def joined(folder: Place, name: str) -> Place:
    """Return what `name` stands for beside a file in `folder`: a URL, an absolute path, or a path in the folder."""
    if URL.match(name):
        return place_of(name)
    if isinstance(folder, RemotePath):
        return RemotePath(f"{folder.url.rstrip('/')}/{name}")
    return folder / name


def parent_of(place: Place) -> Place:
    """Return the folder of a file."""
    return place.parent if isinstance(place, Path) else RemotePath(place.url.rpartition("/")[0])


def parts_below(folder: Place, file: Place) -> tuple[str, ...]:
    """Return the names of the folders below `folder`, and of the file, on the way to `file`."""
    if isinstance(folder, Path):
        assert isinstance(file, Path)
        return file.relative_to(folder).parts
    return PurePosixPath(str(file)[len(folder.url.rstrip("/")) :].lstrip("/")).parts


def key_of(folder: Place, file: Place) -> str:
    """Return the path of `file` relative to `folder`, with slashes; bytes that are no UTF-8 are shown as `\\xff`."""
    key = "/".join(parts_below(folder, file))
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def all_below(folder: Place) -> Iterator[Place]:
    """Yield the files in a folder and its subfolders as they come, without hidden ones."""
    yield from files_below(folder) if isinstance(folder, Path) else folder.files_below()


def media_of(place: Place) -> Path | MediaBytes:
    """Return a file as `Modality.load` takes it: a path on this machine, or the bytes of one behind fsspec.

    Raises:
        InputError: the URL's protocol is not known or needs a package.
        MediaError: a file that is not there, cannot be read or holds no bytes.
    """
    if isinstance(place, RemotePath):
        media = MediaBytes(place.read_bytes(), str(place))
        if not media.content:
            raise MediaError(f"{place}: holds no bytes")
        return media
    try:
        size = place.stat().st_size
    except (OSError, ValueError) as error:
        raise MediaError(f"{place}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not place.is_file():
        raise MediaError(f"{place}: expected a file, got a folder or a device")
    if size == 0:
        raise MediaError(f"{place}: holds no bytes")
    return place


def text_of(place: Place) -> io.BytesIO:
    """Return the content of a text file as lines of bytes."""
    try:
        return io.BytesIO(place.read_bytes())
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{place}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _errors_of(url: str) -> Iterator[None]:
    """Context in which errors of fsspec and of its stores become zoo's."""
    try:
        yield
    except ZooError:
        raise
    except ImportError as error:  # names the package
        raise InputError(f"{url}: cannot be read without a package: {error}") from error
    except FileNotFoundError as error:
        raise MediaError(f"{url}: no such file or folder") from error
    except PermissionError as error:
        raise MediaError(f"{url}: not permitted: {error}") from error
    except ValueError as error:  # an unknown protocol, or a URL that is none of its protocol
        raise InputError(f"{url}: cannot be read: {error}") from error
    except Exception as error:  # of the store's own client
        raise MediaError(f"{url}: cannot be read: {type(error).__name__}: {error}") from error
