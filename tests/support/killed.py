"""Processes that are killed while they write weights: `python -m tests.support.killed HOW WHAT [FOLDER]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

import zoo
from tests.support.tiny_variant import NAME, register_tiny
from zoo import fetching, files, hub, index


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(path: Path, *_: object) -> None:
    Path(path).write_bytes(b"half")
    kill()


def replaced_once(path: str | Path, target: str | Path) -> None:
    rename(path, target)
    kill()


if __name__ == "__main__":
    how, what, *folder = sys.argv[1:]
    index.read().variants[NAME] = "zoo.models.image.wetok"
    variant = register_tiny()
    rename = os.replace
    if how == "while-writing":
        fetching.write_checkpoint = hub.write_checkpoint = half
    elif how == "after-the-first-file":
        files.os.replace = replaced_once
    torch.manual_seed(1)
    if what == "convert":
        zoo.pull(NAME)
    else:
        variant.build().save_pretrained(folder[0])
