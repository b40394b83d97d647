"""A process for each format that is killed while it writes a shard: `python -m tests.support.killed_sinks FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.corpora import facts, rows
from zoo.corpus import sinks
from zoo.corpus.rows import Row


def rows_until_killed() -> Iterator[Row]:
    yield from rows(count=3)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    made = {format: sinks.create(format, Path(sys.argv[1]) / format, facts()) for format in sinks.FORMATS}
    for format, sink in made.items():
        child = os.fork()
        if child == 0:
            sink.write("0", rows_until_killed())
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"{format}: {os.waitstatus_to_exitcode(status)}")
