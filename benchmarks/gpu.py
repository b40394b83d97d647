"""What zoo computes on a GPU, and how fast: goldens, networks, quantizers, a training step and the weights that ship.

    python benchmarks/gpu.py [--device cuda] [--minutes 8] [--json FILE] [--markdown FILE]

- goldens: codes and signals of the device against the authors' outputs in `tests/parity` (as `zoo parity`).
- nano: codes of the weights that ship, on the device against the CPU.
- networks: signals a second and peak memory of `encode` and `decode`, plain, channels last, compiled, and `decode` in
  bfloat16; batches of 1, 8, 64, ... as far as memory goes. For sound and video also seconds of signal a second.
- quantizers: nearest codes and training steps, ours against vector-quantize-pytorch's.
- training: a step of forward, backward and AdamW, in float32 and with bfloat16 autocast.

TF32 is off. Encoding is float32 throughout, so that codes can be compared. Each part has a share of the time; what does
not fit is named in the results. An error of one case is its result, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from throughput import noise  # beside this file

import zoo
from zoo import parity
from zoo.inference import compile_networks
from zoo.quantizers import FSQ, VectorQuantizer
from zoo.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "parity"
PROVED = (  # the quickest to build first
    *("wavtokenizer-small-320-24k-4096", "snac-24khz", "mimi", "cosmos-di-16x16", "llamagen-vq-16", "fqgan-dual-16"),
    *("speechtokenizer-hubert-avg", "titok-s-128", "vqgan-imagenet-f16-16384", "open-magvit2-256", "var-vq-16-4096"),
    *("ibq-16384", "bigcodec", "infinity-vae-d32", "cosmos-dv-4x8x8", "emu3-vision"),
)
NANO = ("wetok-nano", "wavtokenizer-nano", "cosmos-dv-nano", "one-d-piece-nano", "fqgan-nano", "mimi-nano")
NETWORKS = ("wavtokenizer-small-320-24k-4096", "llamagen-vq-16", "mimi", "cosmos-dv-4x8x8", "titok-s-128")
TRAINED = ("wetok-nano", "wavtokenizer-nano", "llamagen-vq-16")
QUANTIZERS = ("VQ, 16,384 codes of 32, encoding", "VQ, 16,384 codes of 32, training", "FSQ, 64,000 codes, encoding")
BATCHES, TRAINING_BATCH = (1, 8, 64, 256), 8
SECONDS_PER_CASE, LEAST_RUNS = 0.5, 3

Record = dict[str, Any]


class Device:
    """Where things run, and how long and in how much memory."""

    def __init__(self, name: str):
        self.name, self.is_gpu = name, name != "cpu"

    def measure(self, call: Callable[[], object]) -> Record:
        """Seconds of the fastest of several calls after one that warms up, and the peak memory in bytes on a GPU."""
        call()
        if self.is_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        while len(times) < LEAST_RUNS or sum(times) < SECONDS_PER_CASE:
            start = time.perf_counter()
            call()
            if self.is_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() if self.is_gpu else None
        return {"seconds": min(times), "peak_bytes": peak}


def golden(device: Device, name: str) -> Iterator[Record]:
    report = parity.parity(name, GOLDENS / name / "manifest.json", GOLDENS / name / "golden.npz", device=device.name)
    yield {"codes_equal": report.code_agreement, "passed": report.passed, "differences": report.differences}


def nano(device: Device, name: str) -> Iterator[Record]:
    tokenizer = zoo.load(name)
    x = noise(tokenizer, 1)
    expected = tokenizer.encode(x)
    found = tokenizer.to(device.name).encode(x.to(device.name)).cpu()
    yield {"codes_equal": float((found == expected).float().mean())}


def network(device: Device, name: str) -> Iterator[Record]:
    torch.manual_seed(0)
    tokenizer = zoo.create(name).to(device.name).eval()
    ways = ["plain", "bfloat16", "compiled"]
    if tokenizer.modality.axes == ("height", "width"):
        ways.insert(1, "channels last")
    for way in ways:
        yield from one_way(device, tokenizer, way)


def one_way(device: Device, tokenizer: Tokenizer, way: str) -> Iterator[Record]:
    """Figures of batches that grow until memory is short; codes, and so encoding, are of float32 alone."""
    one = noise(tokenizer, 1).to(device.name)
    if way == "channels last":
        tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif way == "compiled":
        compile_networks(tokenizer)
    for batch in BATCHES[:2] if way == "compiled" else BATCHES:
        x = one.repeat(batch, *[1] * (one.ndim - 1))
        try:
            codes = tokenizer.encode(x)
            if way == "bfloat16":
                tokenizer.to(torch.bfloat16)
            for direction in ("decode",) if way == "bfloat16" else ("encode", "decode"):
                found = device.measure(partial(getattr(tokenizer, direction), x if direction == "encode" else codes))
                a_second = batch / found["seconds"]
                amount = tokenizer.modality.amount(tokenizer.size_of(x), tokenizer.spec.sample_rate or 24.0)
                speeds = {"signals_a_second": a_second, "amount_a_second": amount * a_second}
                yield {"direction": direction, "way": way, "batch": batch} | found | speeds
        except (torch.OutOfMemoryError, zoo.InputError) as error:  # zoo asks beforehand whether there is room
            yield {"way": way, "batch": batch, "error": str(error).split("\n")[0][:200]}
            return
        finally:
            tokenizer.to(torch.float32)


def quantizer(device: Device, name: str) -> Iterator[Record]:
    import vector_quantize_pytorch as package

    levels = (8, 8, 8, 5, 5, 5)
    is_fsq = name.startswith("FSQ")
    z = torch.randn(4, 4096, 6 if is_fsq else 32, device=device.name)
    ours = FSQ(levels) if is_fsq else VectorQuantizer(32, 16384, update="ema")
    theirs = package.FSQ(list(levels)) if is_fsq else package.VectorQuantize(32, 16384)
    for module in (ours, theirs):
        module.to(device.name).train("training" in name)
    call = ours if "training" in name else ours.encode
    seconds = [device.measure(partial(each, z))["seconds"] for each in (call, theirs)]
    yield {"seconds": seconds[0], "theirs_by_ours": seconds[1] / seconds[0]}


def training(device: Device, name: str) -> Iterator[Record]:
    tokenizer = zoo.create(name).to(device.name).train()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 1e-4)
    x = noise(tokenizer, TRAINING_BATCH).to(device.name)
    for dtype in (torch.float32, torch.bfloat16):

        def step(dtype: torch.dtype = dtype) -> None:
            with torch.autocast(device.name, dtype, enabled=dtype != torch.float32):
                output = tokenizer(x)
                loss = (output.reconstruction - x).float().square().mean() + sum(output.losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        yield {"dtype": str(dtype).removeprefix("torch."), "batch": TRAINING_BATCH} | device.measure(step)


PARTS: dict[str, tuple[Callable[[Device, str], Iterator[Record]], tuple[str, ...], float]] = {  # with a share of time
    "nano": (nano, NANO, 0.05),
    "goldens": (golden, PROVED, 0.3),
    "networks": (network, NETWORKS, 0.45),
    "quantizers": (quantizer, QUANTIZERS, 0.1),
    "training": (training, TRAINED, 0.1),
}


def run_part(part: str, device: Device, deadline: float) -> Iterator[Record]:
    """The results of a part; what it does not come to before `deadline` is named."""
    compute, names, _ = PARTS[part]
    for name in names:
        if time.monotonic() > deadline:
            yield {"part": part, "name": name, "error": "left out: no time"}
            continue
        try:
            for record in compute(device, name):
                yield {"part": part, "name": name} | record
                if time.monotonic() > deadline:
                    break
        except Exception as error:  # of one case: the others are worth having
            reason = f"{type(error).__name__}: {error}".split("\n")[0][:200]
            yield {"part": part, "name": name, "error": reason}


def markdown(records: list[Record]) -> str:
    """A table for each part, with the columns that its results have."""
    lines = []
    for part in PARTS:
        rows = [record for record in records if record["part"] == part]
        columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("part", "differences")))
        lines += [f"## {part}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        lines += [f"| {' | '.join(shown(row.get(column)) for column in columns)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu, to try the script out")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything (default: 8)")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write tables to FILE")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = Device(arguments.device)
    machine = torch.cuda.get_device_name() if device.is_gpu else "CPU"
    records: list[Record] = []
    start = deadline = time.monotonic()
    for part in [arguments.only] if arguments.only else PARTS:
        deadline += 60 * arguments.minutes * (1.0 if arguments.only else PARTS[part][2])  # what is left over goes on
        for record in run_part(part, device, deadline):
            records.append(record)
            print(json.dumps(record), flush=True)
            if arguments.json:
                facts = {"device": machine, "torch": torch.__version__, "seconds": time.monotonic() - start}
                arguments.json.write_text(json.dumps(facts | {"records": records}, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(f"{machine}, PyTorch {torch.__version__}\n\n{markdown(records)}")


if __name__ == "__main__":
    main()
