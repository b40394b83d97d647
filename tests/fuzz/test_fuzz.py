"""What comes from outside, changed at random: it is accepted, or refused by an error of zoo's; nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import BOUNDARIES
from tests.support.fuzz import outcome
from zoo import registry

CASES = {"code_files": 60, "checkpoints": 40, "folders": 40, "recipes": 80}  # of the others 100
ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(BOUNDARIES))
def test_whatever_comes_is_accepted_or_cleanly_refused(name, tmp_path):
    with registry.temporary():
        boundary = BOUNDARIES[name](tmp_path)
        outcomes = [outcome(boundary, seed) for seed in range(CASES.get(name, 100))]
    bad = [found.report for found in outcomes if found.is_bad]
    assert not bad, "\n".join(bad)
    assert {found.kind for found in outcomes} == {"accepted", "clean error"}


@pytest.mark.slow
def test_ten_thousand_cases_are_accepted_or_cleanly_refused():
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "10000"]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout
