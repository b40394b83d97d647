"""Time and memory of zoo.quantizers compared with the plain formula and with vector-quantize-pytorch.

    python benchmarks/quantizers.py [--json FILE] [--only TEXT]

Every measurement is a fresh process. Memory is the growth of its resident set while the operation runs once: the
kernel's high-water mark (VmHWM), reset just before, minus the resident size at that moment. Inputs and codebooks
exist before and do not count; less than 1 MiB counts as 1 MiB. Time is processor time on one thread, which other
work on the machine disturbs least: the shortest of several further runs in that process. An operation whose estimated
memory exceeds 60 % of what is free is not run. Ratios are theirs / ours: above 1, ours is better.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from processes import printed_by  # beside this file

SECONDS_PER_CASE = 1.5
IMAGE = 256  # vectors
ENVIRONMENT = {
    # Fixed, or they would depend on what a process happened to free before: page faults cost as much as FSQ.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**27),
}


@dataclass(frozen=True)
class Case:
    """One row: an operation at one size."""

    operation: str
    vectors: int
    codes: int
    dim: int
    ways: tuple[str, ...] = ("ours", "package")

    @property
    def name(self) -> str:
        return f"{self.operation}, {self.vectors} vectors, {self.codes} codes, dim {self.dim}"


NEAREST, ENTROPY = "nearest code", "LFQ entropy forward+backward"
IBQ_STEP, GUMBEL_STEP = "IBQ forward+backward", "Gumbel VQ forward+backward"
ALL = ("ours", "plain", "package")
MATRICES = {  # of vectors x codes floats that a way holds at once
    (NEAREST, "plain"): 2,
    (NEAREST, "package"): 4,
    (ENTROPY, "plain"): 5,
    (ENTROPY, "package"): 6,
    (IBQ_STEP, "plain"): 12,
}
CASES = [
    Case(NEAREST, 64 * IMAGE, 16384, 8, ALL),
    Case(NEAREST, 4 * 64 * IMAGE, 16384, 8, ("ours",)),
    Case(NEAREST, 64 * IMAGE, 16384, 256, ALL),
    Case(NEAREST, 4 * IMAGE, 262144, 8, ALL),
    Case(NEAREST, 64 * IMAGE, 262144, 8, ALL),
    Case(NEAREST, 4 * IMAGE, 262144, 256, ALL),
    Case(NEAREST, 64 * IMAGE, 262144, 256, ALL),
    Case(ENTROPY, IMAGE, 2**18, 18, ALL),
    Case(ENTROPY, 64 * IMAGE, 2**18, 18, ALL),
    Case(ENTROPY, 4 * 64 * IMAGE, 2**18, 18, ("ours",)),
    Case(IBQ_STEP, IMAGE, 16384, 256, ("ours", "plain")),
    Case(IBQ_STEP, IMAGE, 65536, 256, ("ours", "plain")),
    Case(IBQ_STEP, IMAGE, 262144, 256, ("ours", "plain")),
    Case(GUMBEL_STEP, 4 * IMAGE, 8192, 256, ("ours", "plain")),
    Case("EMA training step", 4800, 4096, 512),
    Case("SimVQ forward+backward", 64 * IMAGE, 8192, 32),
    Case("FSQ encode", IMAGE, 64000, 6),
    Case("FSQ encode", 64 * IMAGE, 64000, 6),
    Case("FSQ forward+backward", 64 * IMAGE, 64000, 6),
    Case("import after torch", 0, 0, 0),
]


def nearest_code(case: Case, way: str) -> Callable[[], object]:
    import torch

    z, codebook = torch.randn(case.vectors, case.dim), torch.randn(case.codes, case.dim)
    if way == "ours":
        from zoo.quantizers import nearest_code

        return lambda: nearest_code(z, codebook)
    if way == "plain":
        return lambda: (z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)).argmin(1)
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(case.dim, case.codes).eval()
    return lambda: quantizer(z[None])


def lfq_entropy(case: Case, way: str) -> Callable[[], object]:
    import torch

    z = (0.02 * torch.randn(case.vectors, case.dim)).requires_grad_()
    if way == "ours":
        from zoo.quantizers import LFQ

        quantizer = LFQ(case.dim)
        return lambda: quantizer(z).losses["entropy_loss"].backward()
    if way == "plain":
        signs = ((torch.arange(case.codes)[:, None] >> torch.arange(case.dim)) & 1) * 2.0 - 1

        def entropy_loss() -> None:
            log_probability = torch.log_softmax(200 * z @ signs.T, dim=1)
            probability = log_probability.exp()
            mean = probability.mean(0)
            entropy = -(probability * log_probability).sum(1).mean()
            (entropy + (mean * torch.log(mean + 1e-5)).sum()).backward()

        return entropy_loss
    from vector_quantize_pytorch import LFQ as PackageLFQ

    package = PackageLFQ(dim=case.dim, entropy_loss_weight=1.0, commitment_loss_weight=0.0)
    return lambda: package(z[None])[2].backward()


def ibq(case: Case, way: str) -> Callable[[], object]:
    import torch

    from zoo.quantizers import IBQ

    quantizer = IBQ(case.dim, case.codes)
    quantizer.codebook.grad = torch.zeros_like(quantizer.codebook)
    z = torch.randn(case.vectors, case.dim, requires_grad=True)

    def ours() -> None:
        losses = quantizer(z).losses
        (losses["index_loss"] + 0.05 * losses["entropy_loss"]).backward()

    def plain() -> None:
        logits = z @ quantizer.codebook.T
        probability = torch.softmax(logits, dim=1)
        hard = torch.nn.functional.one_hot(probability.argmax(dim=1), case.codes).float()
        quantized = (hard - probability.detach() + probability) @ quantizer.codebook
        log_probability = torch.log_softmax(logits / 0.01, dim=1)
        sharp = log_probability.exp()
        mean = sharp.mean(0)
        entropy = (mean * torch.log(mean + 1e-5)).sum() - (sharp * log_probability).sum(1).mean()
        ((quantized - z).square().mean() + 0.05 * entropy).backward()

    return ours if way == "ours" else plain


def gumbel(case: Case, way: str) -> Callable[[], object]:
    import torch

    from zoo.quantizers import GumbelVQ

    quantizer = GumbelVQ(case.dim, case.codes)
    z = torch.randn(case.vectors, case.dim, requires_grad=True)

    def ours() -> None:
        output = quantizer(z)
        (output.quantized.square().mean() + output.losses["kl_loss"]).backward()

    def plain() -> None:
        logits = quantizer.project(z)
        soft = torch.nn.functional.gumbel_softmax(logits, hard=True)
        probability = torch.softmax(logits, dim=1)
        divergence = (probability * torch.log(probability * case.codes + 1e-10)).sum(1).mean()
        ((soft @ quantizer.codebook).square().mean() + divergence).backward()

    return ours if way == "ours" else plain


def ema_step(case: Case, way: str) -> Callable[[], object]:
    import torch

    z = torch.randn(1, case.vectors, case.dim)
    if way == "ours":
        from zoo.quantizers import VectorQuantizer

        quantizer = VectorQuantizer(case.dim, case.codes, update="ema")
    else:
        from vector_quantize_pytorch import VectorQuantize

        quantizer = VectorQuantize(case.dim, case.codes, decay=0.99)
    return lambda: quantizer(z)


def sim_vq(case: Case, way: str) -> Callable[[], object]:
    import torch

    z = torch.randn(1, case.vectors, case.dim, requires_grad=True)
    if way == "ours":
        from zoo.quantizers import SimVQ

        quantizer = SimVQ(case.dim, case.codes)
        return lambda: sum(quantizer(z).losses.values()).backward()
    from vector_quantize_pytorch import SimVQ as PackageSimVQ

    package = PackageSimVQ(case.dim, case.codes, rotation_trick=False)
    return lambda: package(z)[2].backward()


def fsq(case: Case, way: str, *, backward: bool) -> Callable[[], object]:
    import torch

    levels = [8, 8, 8, 5, 5, 5]
    z = torch.randn(1, case.vectors, case.dim, requires_grad=backward)
    if way == "ours":
        from zoo.quantizers import FSQ

        quantizer = FSQ(levels)
        return (lambda: quantizer(z).quantized.sum().backward()) if backward else (lambda: quantizer.encode(z))
    from vector_quantize_pytorch import FSQ as PackageFSQ

    package = PackageFSQ(levels)
    return (lambda: package(z)[0].sum().backward()) if backward else (lambda: package(z)[1])


def import_package(case: Case, way: str) -> Callable[[], object]:
    import torch  # noqa: F401

    return lambda: __import__("zoo.quantizers" if way == "ours" else "vector_quantize_pytorch")


OPERATIONS = {
    NEAREST: nearest_code,
    ENTROPY: lfq_entropy,
    IBQ_STEP: ibq,
    GUMBEL_STEP: gumbel,
    "EMA training step": ema_step,
    "SimVQ forward+backward": sim_vq,
    "FSQ encode": lambda case, way: fsq(case, way, backward=False),
    "FSQ forward+backward": lambda case, way: fsq(case, way, backward=True),
    "import after torch": import_package,
}


def kernel_bytes(file: str, key: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def measure(case: Case, way: str) -> dict[str, float]:
    """Seconds and bytes of one operation, in this process."""
    build = OPERATIONS[case.operation]
    if case.vectors:
        build(replace(case, vectors=16), way)()  # so that code paged in at first use does not count
    operation = build(case, way)
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory, which would otherwise be used again uncounted
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    before = kernel_bytes("/proc/self/status", "VmRSS")
    started = time.process_time()
    operation()
    seconds = time.process_time() - started
    memory = kernel_bytes("/proc/self/status", "VmHWM") - before
    if case.operation != "import after torch":
        repeats = int(min(200, SECONDS_PER_CASE / max(seconds, 1e-6)))
        for _ in range(repeats):
            started = time.process_time()
            operation()
            seconds = min(seconds, time.process_time() - started)
    return {"seconds": seconds, "bytes": memory}


def measure_in_process(case: Case, way: str) -> dict[str, float]:
    needed = 4 * case.vectors * case.codes * MATRICES.get((case.operation, way), 0)
    if needed > 0.6 * kernel_bytes("/proc/meminfo", "MemAvailable"):
        return {"does_not_fit_bytes": needed}
    return printed_by(__file__, "--measure", CASES.index(case), way, environment=ENVIRONMENT)


def cells(ours: dict[str, float], theirs: dict[str, float] | None) -> list[str]:
    if theirs is None:
        return ["", ""]
    if "does_not_fit_bytes" in theirs:
        return ["does not fit", f"needs {theirs['does_not_fit_bytes'] / 2**30:.0f} GiB"]
    time_ratio = theirs["seconds"] / ours["seconds"]
    memory_ratio = max(theirs["bytes"], 2**20) / max(ours["bytes"], 2**20)
    return [f"{time_ratio:.2f}x", f"{memory_ratio:.1f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        number, way = arguments.measure
        print(json.dumps(measure(CASES[int(number)], way)))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("operation", "vectors", "codes", "dim", "ours", "memory", title="theirs / ours")
    for heading in ("plain: time", "memory", "package: time", "memory"):
        table.add_column(heading, justify="right")
    records = []
    for case in CASES:
        if arguments.only not in case.name:
            continue
        results = {way: measure_in_process(case, way) for way in case.ways}
        if results["ours"]["seconds"] < 0.1:  # other work disturbs short ones most: run each twice more, in turn
            for way in 2 * case.ways:
                again = measure_in_process(case, way)
                results[way] = {key: min(value, again[key]) for key, value in results[way].items()}
        records.append(asdict(case) | {"results": results})
        ours = results["ours"]
        table.add_row(
            case.operation,
            *(str(number) if number else "" for number in (case.vectors, case.codes, case.dim)),
            f"{1000 * ours['seconds']:.3g} ms",
            f"{ours['bytes'] / 2**20:.0f} MiB",
            *cells(ours, results.get("plain")),
            *cells(ours, results.get("package")),
        )
        print(case.name, file=sys.stderr)
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
