"""Run the fuzz: `python -m tests.fuzz 10000` prints a table, `python -m tests.fuzz BOUNDARY SEED` runs one case."""

import faulthandler
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz import BOUNDARIES
from tests.support.fuzz import OUTCOMES, Boundary, outcome
from zoo import registry

MEMORY = int(4.5 * 2**30)
STUCK = 60.0  # seconds after which a case that nothing interrupts ends the run


def made(name: str, folder: Path) -> Boundary:
    """Return a boundary with a folder of its own."""
    (folder / name).mkdir()
    return BOUNDARIES[name](folder / name)


def run_one(boundary: Boundary, seed: int) -> Counter[str]:
    """Run a case, print it if it is bad, and count its outcome."""
    faulthandler.dump_traceback_later(STUCK, exit=True)
    found = outcome(boundary, seed)
    faulthandler.cancel_dump_traceback_later()
    if found.is_bad:
        print(found.report, flush=True)
    return Counter({found.kind: 1})


def table(counts: dict[str, Counter[str]]) -> str:
    """Return how many cases of each boundary had each outcome."""
    lines = [f"{'boundary':12}" + "".join(f"{kind:>12}" for kind in OUTCOMES)]
    total = sum(counts.values(), Counter())
    for name, count in [*counts.items(), ("all", total)]:
        lines.append(f"{name:12}" + "".join(f"{count[kind]:12,}" for kind in OUTCOMES))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Return 0 if no case was bad."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder, registry.temporary():
        if arguments and arguments[0] in BOUNDARIES:
            boundary = made(arguments[0], Path(folder))
            limit_memory()
            counts: Counter[str] = Counter()
            for text in arguments[1:]:
                first, _, last = text.partition("-")
                for seed in range(int(first), int(last or first) + 1):
                    counts += run_one(boundary, seed)
            print(dict(counts))
            return int(bool(counts["other"] or counts["silent"]))
        boundaries = {name: made(name, Path(folder)) for name in BOUNDARIES}
        limit_memory()
        outcomes: dict[str, Counter[str]] = {name: Counter() for name in boundaries}
        for number in range(int(arguments[0])):
            name = list(boundaries)[number % len(boundaries)]
            outcomes[name] += run_one(boundaries[name], number // len(boundaries))
        print(table(outcomes))
        return int(any(count["other"] or count["silent"] for count in outcomes.values()))


def limit_memory() -> None:
    """Bound the memory of this process."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
