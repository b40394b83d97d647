"""Manifests: files that list media files, and excerpts of them, one a line.

A `.jsonl` file has an object a line:

    {"path": "talks/first one.flac"}
    {"path": "talks/second.flac", "start": 12.5, "duration": 4.0, "id": "greeting"}

`path` is relative to the manifest, absolute, or a URL. `start` and `duration` are in seconds, of audio and video.
`id` names the item; without it the path does, followed by the excerpt as in `talks/second.flac[12.5+4.0]`. Other keys
are left alone. A `.txt` file has a path a line, with all its spaces. Empty lines do not count.

A line that is damaged, or whose name a line before it has, is an item with a problem; its key is `line 7`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError, shown
from zoo.modalities import Modality
from zoo.sources.folders import Entry
from zoo.sources.places import Place, joined, parent_of, text_of


@dataclass(frozen=True)
class Line:
    """What a line of a manifest says."""

    path: str
    start: float | None = None
    duration: float | None = None
    id: str | None = None

    @property
    def key(self) -> str:
        if self.id is not None:
            return self.id
        if self.start is None and self.duration is None:
            return self.path
        return f"{self.path}[{self.start or 0.0}+{'' if self.duration is None else self.duration}]"

    @property
    def options(self) -> dict[str, float]:
        options = {"start": self.start, "seconds": self.duration}
        return {name: value for name, value in options.items() if value is not None}


def manifest_entries(manifest: Place, modality: Modality) -> list[Entry]:
    """Return the items of a manifest.

    Raises:
        InputError: there is no line.
        MediaError: it cannot be read.
    """
    folder, is_json, source = parent_of(manifest), manifest.suffix.lower() == ".jsonl", str(manifest)
    lines: dict[str, int] = {}
    entries = []
    for number, raw in enumerate(text_of(manifest), 1):
        raw = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).rstrip(b"\r\n")
        if not raw.strip():
            continue
        try:
            line = _from_json(raw) if is_json else Line(_path(raw.decode()))
            _check_excerpt(line, modality)
            key = line.key
            if key in lines:
                raise InputError(f"{shown(key)} is in line {lines[key]} already")
            entry = Entry(source, key, joined(folder, line.path), line.options)
        except (ValueError, RecursionError) as error:
            key = f"line {number}"
            while key in lines:  # an id of such a form
                key += "#"
            entry = Entry(source, key, None, problem=f"{manifest}: line {number}: {_reason(error)}")
        lines[key] = number
        entries.append(entry)
    if not entries:
        raise InputError(f"{manifest}: expected a manifest with a file a line, got no line")
    return entries


def _from_json(raw: bytes) -> Line:
    values = json.loads(raw.decode())
    if not isinstance(values, dict):
        raise InputError(f"expected an object with a path, got {shown(values)}")
    start, duration, name = values.get("start"), values.get("duration"), values.get("id")
    if start is not None and not (_is_number(start) and start >= 0):
        raise InputError(f"expected start as seconds of at least 0, got {shown(start)}")
    if duration is not None and not (_is_number(duration) and duration > 0):
        raise InputError(f"expected duration as more than 0 seconds, got {shown(duration)}")
    if name is not None and not (isinstance(name, str) and name and _is_text(name)):
        raise InputError(f"expected id as text, got {shown(name)}")
    return Line(_path(values.get("path")), None if start is None else float(start), duration and float(duration), name)


def _check_excerpt(line: Line, modality: Modality) -> None:
    if not line.options.keys() <= set(modality.options):
        raise InputError(f"expected no start or duration, which {modality.noun[1]} do not have")


def _path(path: Any) -> str:
    if not isinstance(path, str) or not path or not _is_text(path):
        raise InputError(f"expected path as text, got {shown(path)}")
    return path


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # surrogates, which JSON may spell
        return False
    return "\0" not in text


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"expected UTF-8, got byte {error.object[error.start]:#04x}"
    if isinstance(error, json.JSONDecodeError):
        return f"expected an object in JSON: {error.msg} at character {error.pos + 1}"
    return str(error) or type(error).__name__
