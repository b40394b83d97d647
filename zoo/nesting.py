"""How deep text is nested, before a parser that calls itself for each level reads it."""

from __future__ import annotations

import re
from itertools import accumulate

STRINGS, BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(r"[][{}]")


def deepest(text: str) -> int:
    """Return the greatest number of brackets of JSON or YAML that are open at one place, outside quoted strings."""
    brackets = BRACKETS.findall(STRINGS.sub("", text))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)
