"""Names of items for files and for members of archives."""

from __future__ import annotations

import re
import unicodedata

from zoo import modalities

UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*.\ud800-\udfff]')
LONGEST = 150  # bytes of a part; file systems take 255 with the suffix


class Names:
    """Gives the items of one shard names that no two of them share.

    A name is the key without the suffix of its media file. It has no dot, at which WebDataset would end it, nothing
    that a file system refuses or that leads out of a folder, and may hold slashes, spaces and any script.

    Args:
        modality: kind of signal.
    """

    def __init__(self, modality: str):
        self.suffixes = modalities.get(modality).suffixes
        self.taken: set[str] = set()

    def of(self, key: str) -> str:
        """Return the name of the next item. Its number is added if another has it, whatever its case."""
        stem = key.removesuffix(self.suffix(key))
        parts = (UNSAFE.sub("_", part).strip() for part in stem.split("/"))
        name = "/".join(_cut(part) for part in parts if part) or "_"
        name = re.sub("^_{2,}", "_", name)  # WebDataset leaves out names that begin with `__meta__`
        unique, number = name, 1
        while (folded := unicodedata.normalize("NFC", unique).casefold()) in self.taken:
            number += 1
            unique = f"{name}-{number}"
        self.taken.add(folded)
        return unique

    def suffix(self, path: str) -> str:
        """Return the longest suffix of the modality's files that a path ends in, as it stands there; "" if none."""
        lower = path.lower()
        length = max((len(suffix) for suffix in self.suffixes if lower.endswith(suffix)), default=0)
        return path[len(path) - length :]


def _cut(part: str) -> str:
    return part.encode()[:LONGEST].decode(errors="ignore").strip()
