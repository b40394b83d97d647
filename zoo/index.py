"""The index of the models: which file holds which tokenizer and how many parameters it has, without importing any.

`python -m zoo.facts` writes it, `models/index.json`, from what the model files register, and beside it
`models/catalog.json`, which `zoo.catalog` reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

PATH = Path(str(files("zoo"))) / "models" / "index.json"
CATALOG = PATH.with_name("catalog.json")


@dataclass(frozen=True)
class Index:
    """Everything that the model files of zoo register.

    variants: name to module. parameters: name to number of parameters. aliases: alias to name. architectures: class
        name to module.
    """

    variants: dict[str, str]
    parameters: dict[str, int]
    aliases: dict[str, str]
    architectures: dict[str, str]


@cache
def read() -> Index:
    """Return the index that is on disk."""
    modules = json.loads(PATH.read_text(encoding="utf-8"))
    return Index(
        variants={name: module for module, entry in modules.items() for name in entry["variants"]},
        parameters={name: count for entry in modules.values() for name, count in entry["variants"].items()},
        aliases={alias: name for entry in modules.values() for alias, name in entry["aliases"].items()},
        architectures={name: module for module, entry in modules.items() for name in entry["architectures"]},
    )
