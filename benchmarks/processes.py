"""Measurements in processes of their own, so that none finds what another has left in memory or in a cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def printed_by(
    script: str, *arguments: object, threads: int | None = 1, environment: Mapping[str, str] | None = None
) -> Any:
    """Return the JSON on the last line that a script prints.

    Args:
        script: its file. arguments: those of its command line.
        threads: how many PyTorch has; None: as many as it chooses.
        environment: variables beside those of this process.

    Raises:
        RuntimeError: the process failed; the message ends with what it printed last.
    """
    command = [sys.executable, script, *map(str, arguments)]
    variables = {"PYTHONPATH": str(ROOT)} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    result = subprocess.run(
        command, env=os.environ | variables | dict(environment or {}), capture_output=True, text=True
    )
    if result.returncode:
        reason = result.stderr.strip()[-2000:] or f"ended with {result.returncode}"
        raise RuntimeError(f"{' '.join(command[1:])}: {reason}")
    return json.loads(result.stdout.splitlines()[-1])
