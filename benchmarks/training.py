"""Speed, memory and waiting of zoo.trainers' loop compared with a plain PyTorch loop of the same model and data.

    python benchmarks/training.py [--only TEXT] [--rounds N] [--block N] [--images DIR] [--speech DIR] [--json FILE]

Ours is what `zoo.trainers.train` does at a step: Trainer, data, logging to TensorBoard, history and stderr, but no
validation and no checkpoints. Plain is what one writes by hand for one model: a DataLoader of decoded crops, forward,
losses, backward, clipping, fused AdamW, a schedule, an average of the weights, the loss printed as often as ours. Both
start from the same weights, with the recipes' data and optimizers, and with the same losses, which are fixed here.

Both loops run in one process on one thread, a block of steps each in turn, so that other work on the machine affects
both. Time is processor time, which such work disturbs least. The time of a step is the median over blocks; the ratio,
plain / ours, is the median over pairs of neighbouring blocks: above 1, ours is faster; it should be at least 0.95.
Waiting is the share of the wall clock time of our steps that is spent in `next(batches)`; it should be under 5 %.
Memory is measured in a fresh process for each loop: the kernel's high-water mark (VmHWM) of building everything and of
`MEMORY_STEPS` steps, minus the resident size after the imports and the decoding of the data.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

import zoo
from zoo.bench.machine import resident
from zoo.files import atomic_path
from zoo.spec import TokenizerOutput
from zoo.trainers import Recipe, create_tokenizer, load_recipe
from zoo.trainers.adversarial.discriminators import PatchGAN
from zoo.trainers.adversarial.losses import hinge_discriminator_loss, hinge_generator_loss
from zoo.trainers.data.batches import Crops, training_batches
from zoo.trainers.data.options import ImageData
from zoo.trainers.data.signals import Signals
from zoo.trainers.data.splits import training_and_validation
from zoo.trainers.loop import Bookkeeper
from zoo.trainers.losses.reconstruction import convergence_loss, mel_loss, ssim_loss, stoi_loss
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer
from zoo.trainers.training_log import TrainingLog

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    # Fixed; otherwise the memory that a process returns would depend on what it happened to free before.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**27),
}
MEMORY_STEPS = 4
JUDGEMENT, JUDGE_WIDTH = 0.1, 16
LOSSES = {
    "wetok-nano": {"l2": 10.0, "ssim": 0.2, "commitment_loss": 0.02, "entropy_loss": 0.01},
    "wavtokenizer-nano": {"mel": 1.0, "convergence": 1.0, "stoi": 3.0, "commitment_loss": 0.25},
}


@dataclass(frozen=True)
class Case:
    """One row: a recipe, with or without a discriminator."""

    recipe: str
    adversarial: bool = False

    @property
    def name(self) -> str:
        return f"{self.recipe}, adversarial" if self.adversarial else self.recipe

    def load(self, block: int) -> Recipe:
        """The recipe with losses of our own, which logs every `block` steps and saves no checkpoint before its end."""
        recipe = load_recipe(self.recipe)
        judge = {"arguments": {"width": JUDGE_WIDTH}, "weight": JUDGEMENT}
        changes = {
            "losses": LOSSES[self.recipe],
            "adversarial": {"discriminators": {"patchgan": judge}} if self.adversarial else None,
            "log_every": block,
            "checkpoint_every": recipe.steps,
        }
        return load_recipe(recipe, changes)


CASES = [Case("wetok-nano"), Case("wavtokenizer-nano"), Case("wetok-nano", adversarial=True)]


class Timed:
    """An iterator that adds up the seconds spent in it."""

    def __init__(self, iterator: Iterator[Tensor]):
        self.iterator, self.seconds = iterator, 0.0

    def __iter__(self) -> Timed:
        return self

    def __next__(self) -> Tensor:
        started = time.perf_counter()
        item = next(self.iterator)
        self.seconds += time.perf_counter() - started
        return item


class Ours:
    """The steps of `zoo.trainers.train`, in a folder of its own."""

    def __init__(self, recipe: Recipe, signals: Signals, folder: Path):
        fabric = Fabric(accelerator="cpu", devices=1)
        self.trainer = Trainer(fabric, recipe, create_tokenizer(recipe))
        loader = training_batches(Crops(signals, recipe.data, recipe.seed), recipe, step=0)
        self.batches = Timed(iter(fabric.setup_dataloaders(loader, use_distributed_sampler=False)))
        run_folder = RunFolder(folder)
        run_folder.start(recipe, step=0)
        self.log = TrainingLog(run_folder, recipe, self.trainer.tokenizer.spec, 0)
        self.bookkeeper = Bookkeeper(self.trainer, run_folder, self.log, None, [], validates=False)

    def step(self) -> None:
        self.trainer.advance(self.batches)
        self.bookkeeper.after_step()


class Pictures(Dataset):
    def __init__(self, pictures: Sequence[Tensor], crop: int):
        self.pictures, self.crop = pictures, crop

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        picture, crop = self.pictures[index], self.crop
        top, left = (int(torch.randint(side - crop + 1, ())) for side in picture.shape[1:])
        picture = picture[:, top : top + crop, left : left + crop]
        return picture.flip(-1) if torch.rand(()) < 0.5 else picture.contiguous()


class Sounds(Dataset):
    def __init__(self, sounds: Sequence[Tensor], samples: int, peak_db: tuple[float, float]):
        self.sounds, self.samples, self.peak_db = sounds, samples, peak_db

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> Tensor:
        sound, (low, high) = self.sounds[index], self.peak_db
        start = int(torch.randint(sound.shape[1] - self.samples + 1, ()))
        peak = 10 ** ((low + (high - low) * float(torch.rand(()))) / 20)
        return sound[:, start : start + self.samples].float() * (peak / 32767)


class Plain:
    """A loop by hand."""

    def __init__(self, recipe: Recipe, signals: Signals):
        self.recipe, self.is_image, options = recipe, isinstance(recipe.data, ImageData), recipe.optimizer
        self.tokenizer = create_tokenizer(recipe)
        self.optimizer = torch.optim.AdamW(
            self.tokenizer.parameters(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate)
        self.averaged = AveragedModel(self.tokenizer, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay))
        self.discriminator = None
        if recipe.adversarial:
            torch.manual_seed(recipe.seed)
            self.discriminator = PatchGAN(width=JUDGE_WIDTH)
            self.discriminator_optimizer = torch.optim.AdamW(
                self.discriminator.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True
            )
        decoded = [signals[index] for index in range(len(signals))]
        if self.is_image:
            self.data: Dataset = Pictures(decoded, recipe.data.crop)
        else:
            self.data = Sounds(decoded, round(recipe.data.seconds * signals.spec.sample_rate), recipe.data.peak_db)
        self.batches = self.endless()
        self.steps = 0

    def endless(self) -> Iterator[Tensor]:
        loader = DataLoader(self.data, self.recipe.batch_size, shuffle=True, drop_last=True)
        while True:
            yield from loader

    def rate(self, step: int) -> float:
        warmup = self.recipe.optimizer.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / (self.recipe.steps - warmup))) / 2

    def step(self) -> None:
        batch = next(self.batches)
        original = batch.float() / 255 if self.is_image else batch
        output = self.tokenizer(original)
        loss = (picture_loss if self.is_image else sound_loss)(output, original)
        if self.discriminator:
            self.discriminator.requires_grad_(False)
            loss = loss + JUDGEMENT * hinge_generator_loss(self.judge(output.reconstruction))
            self.discriminator.requires_grad_(True)
        self.descend(loss, self.tokenizer, self.optimizer)
        self.schedule.step()
        self.averaged.update_parameters(self.tokenizer)
        if self.discriminator:
            judgements = self.judge(original), self.judge(output.reconstruction.detach())
            self.descend(hinge_discriminator_loss(*judgements), self.discriminator, self.discriminator_optimizer)
        self.steps += 1
        if self.steps % self.recipe.log_every == 0:
            print(f"step {self.steps}  loss {loss.item():.4g}", file=sys.stderr)

    def judge(self, pictures: Tensor) -> Tensor:
        return self.discriminator(2 * pictures - 1)[0][0]

    def descend(self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def picture_loss(output: TokenizerOutput, original: Tensor) -> Tensor:
    weights = LOSSES["wetok-nano"]
    return (
        weights["l2"] * F.mse_loss(output.reconstruction, original)
        + weights["ssim"] * ssim_loss(output.reconstruction, original)
        + weights["commitment_loss"] * output.losses["commitment_loss"]
        + weights["entropy_loss"] * output.losses["entropy_loss"]
    )


def sound_loss(output: TokenizerOutput, original: Tensor) -> Tensor:
    weights = LOSSES["wavtokenizer-nano"]
    return (
        weights["mel"] * mel_loss(output.reconstruction, original, 24000)
        + weights["convergence"] * convergence_loss(output.reconstruction, original)
        + weights["stoi"] * stoi_loss(output.reconstruction, original, 24000)
        + weights["commitment_loss"] * output.losses["commitment_loss"]
    )


def read_signals(recipe: Recipe, folder: Path) -> Signals:
    return Signals(training_and_validation(folder)[0], zoo.info(recipe.tokenizer).spec, recipe.data)


def measure_speed(case: Case, data: Path, block: int, rounds: int) -> dict[str, float]:
    """Seconds of a step of both loops, their ratio, and our share of waiting."""
    torch.set_num_threads(1)
    recipe = case.load(block)
    signals = read_signals(recipe, data)
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as silence,
        contextlib.redirect_stderr(silence),
    ):
        ours, plain = Ours(recipe, signals, Path(folder)), Plain(recipe, signals)
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        clock = 0.0
        for number in range(rounds + 1):
            if number == 1:  # the first round warms up
                seconds, clock, ours.batches.seconds = {"ours": [], "plain": []}, 0.0, 0.0
            order = {"ours": ours, "plain": plain} if number % 2 else {"plain": plain, "ours": ours}
            for name, loop in order.items():
                started, began = time.process_time(), time.perf_counter()
                for _ in range(block):
                    loop.step()
                seconds[name].append((time.process_time() - started) / block)
                clock += time.perf_counter() - began if loop is ours else 0.0
        ours.log.writer.close()
    return {
        "ours_seconds": median(seconds["ours"]),
        "plain_seconds": median(seconds["plain"]),
        "ratio": median(theirs / mine for theirs, mine in zip(seconds["plain"], seconds["ours"], strict=True)),
        "waiting": ours.batches.seconds / clock,
    }


def measure_memory(case: Case, way: str, data: Path) -> int:
    """Bytes that one loop takes at most beside the data, in this process."""
    recipe = case.load(block=2)
    signals = read_signals(recipe, data)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        loop = Ours(recipe, signals, Path(folder)) if way == "ours" else Plain(recipe, signals)
        for _ in range(MEMORY_STEPS):
            loop.step()
        return resident("VmHWM") - before


def memory_in_process(case: Case, way: str, data: Path) -> int:
    command = [sys.executable, __file__, "--measure", str(CASES.index(case)), way, str(data)]
    result = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{case.name}, {way}: {result.stderr}")
    return int(result.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="pairs of blocks (default: 8)")
    parser.add_argument("--block", type=int, default=10, metavar="N", help="steps of a block (default: 10)")
    parser.add_argument(
        "--images", type=Path, default=DATA / "images", metavar="DIR", help="at least 128 pixels a side"
    )
    parser.add_argument(
        "--speech", type=Path, default=DATA / "speech", metavar="DIR", help="at least 1.28 seconds each"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        number, way, data = options.measure
        print(measure_memory(CASES[int(number)], way, Path(data)))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", title="plain / ours")
    for heading in ("ours: a step", "speed", "waiting", "ours: memory", "memory"):
        table.add_column(heading, justify="right")
    records = []
    for case in CASES:
        if options.only not in case.name:
            continue
        data = options.images if case.recipe == "wetok-nano" else options.speech
        speed = measure_speed(case, data, options.block, options.rounds)
        memory = {f"{way}_bytes": memory_in_process(case, way, data) for way in ("ours", "plain")}
        records.append(asdict(case) | speed | memory)
        table.add_row(
            case.name,
            f"{1000 * speed['ours_seconds']:.0f} ms",
            f"{speed['ratio']:.3f}x",
            f"{speed['waiting']:.1%}",
            f"{memory['ours_bytes'] / 2**20:.0f} MiB",
            f"{memory['plain_bytes'] / memory['ours_bytes']:.2f}x",
        )
        print(case.name, file=sys.stderr)
    Console(width=120).print(table)
    if options.json:
        with atomic_path(options.json, overwrite=True) as temporary:
            temporary.write_text(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
