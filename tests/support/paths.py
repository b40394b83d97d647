"""Where the repository's files are that tests read."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDENS = TESTS / "parity"
SHARED = ROOT.parent / "shared"  # beside a developer's checkout alone
