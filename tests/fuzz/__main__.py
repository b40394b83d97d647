"""Run the fuzz: `python -m tests.fuzz 10000` prints a table, `python -m tests.fuzz BOUNDARY SEED` runs one case.

Each boundary has a process of its own, of limited memory; `BOUNDARY FIRST-LAST` runs the cases of some seeds.
"""

import faulthandler
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz import BOUNDARIES
from tests.support.fuzz import OUTCOMES, outcome
from zoo import registry

MEMORY = 2**30  # bytes that the cases of a boundary may take beside what it made
STUCK = 60.0  # seconds after which a case that nothing interrupts ends its process


def run_cases(name: str, first: int, last: int) -> Counter[str]:
    """Run the cases of a boundary, print the bad ones, and count the outcomes."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, registry.temporary():
        boundary = BOUNDARIES[name](Path(folder))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for seed in range(first, last + 1):
            faulthandler.dump_traceback_later(STUCK, exit=True)
            found = outcome(boundary, seed)
            counts[found.kind] += 1
            if found.is_bad:
                print(found.report, flush=True)
        faulthandler.cancel_dump_traceback_later()
    return counts


def counts_of(name: str, cases: int) -> Counter[str]:
    """Run the cases of a boundary in another process; what ends that is one more bad outcome."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", name, f"0-{cases - 1}"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    *reports, last = ran.stdout.rstrip("\n").split("\n")
    if last.startswith("{"):
        print("\n".join(reports))
        return Counter(json.loads(last))
    print(ran.stdout, f"{name}: its process ended with {ran.returncode}", sep="\n")
    return Counter(other=1)


def table(counts: dict[str, Counter[str]]) -> str:
    """Return how many cases of each boundary had each outcome."""
    rows = [*counts.items(), ("all", sum(counts.values(), Counter()))]
    lines = [f"{'boundary':12}" + "".join(f"{kind:>12}" for kind in OUTCOMES)]
    lines += [f"{name:12}" + "".join(f"{count[kind]:12,}" for kind in OUTCOMES) for name, count in rows]
    return "\n".join(lines)


def main(first: str, seeds: str = "0") -> int:
    """Return 0 if no case was bad."""
    faulthandler.enable()
    if first in BOUNDARIES:
        start, _, end = seeds.partition("-")
        counts = run_cases(first, int(start), int(end or start))
        print(json.dumps(counts))
        return int(counts["other"] + counts["silent"] > 0)
    cases = -(-int(first) // len(BOUNDARIES))
    outcomes = {name: counts_of(name, cases) for name in BOUNDARIES}
    print(table(outcomes))
    return int(any(count["other"] + count["silent"] for count in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
