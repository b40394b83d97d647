"""The same small image tokenizer trained with every quantizer family, at 12 bits a position.

    python benchmarks/quantizer_ablation.py [--families NAME ...] [--seeds N ...] [--steps N] [--data DIR] [--json FILE]
    python benchmarks/quantizer_ablation.py --json FILE --markdown

Encoder and decoder (convolutions, stride 8, 0.3 M parameters), crops, steps, optimizer and the squared error are the
same for all families, and for one seed so are the initial weights and the batches. A linear map on either side of the
quantizer gives it the channels that it works with. Its own losses have the weights of our recipes: see `FAMILIES`.
`dimensionwise` is trained without a quantizer and measured after `zoo.discretize`; its time is that of a training step.

PSNR is the mean over the first validation images (squares of 256 pixels from their centres), with averaged weights.
Usage and perplexity are counted over the codes of all of them and averaged over the codebooks; bits are what the codes
carry (the entropies of all codebooks together). Time is the processor time of a whole step on one thread, the median of
the run. Every figure is a mean over seeds, with the standard deviation after ±.

Results go to the JSON file as each run ends; runs that the file already has, with the same settings, are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import zoo
from zoo.files import atomic_path
from zoo.quantizers import Quantizer, QuantizerOutput, create
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.trainers.data.batches import Crops, Excerpts, to_signal, training_batches, validation_batches
from zoo.trainers.data.options import ImageData
from zoo.trainers.data.signals import Signals
from zoo.trainers.recipe import Optimizer, Recipe, Validation
from zoo.trainers.trainer import Trainer
from zoo.trainers.validation import choose_metrics, validate

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "images"
CROP, BATCH, STEPS, SEEDS, LEARNING_RATE = 64, 8, 400, (0, 1, 2), 5e-3
VALIDATION_CROP, VALIDATION_ITEMS, CALIBRATION_BATCHES = 256, 32, 16
WIDTH = 48
SQUARED_ERROR = 4.0  # 1 in [-1, 1], the range in which the quantizers' weights are published
EMA_CODEBOOK = {"update": "ema", "kmeans_init": True, "revive_below": 0.03}


@dataclass(frozen=True)
class Family:
    """A quantizer and how it is trained.

    setting: its description in the table. weights: weights of its own losses.
    """

    build: Callable[[], Quantizer]
    setting: str
    weights: dict[str, float] = field(default_factory=dict)


class NoQuantizer(Quantizer):
    """Passes latents on unchanged; its one code is 0."""

    def __init__(self, dim: int):
        super().__init__(dim, (1,))

    def forward(self, z: Tensor) -> QuantizerOutput:
        return QuantizerOutput(z, z.new_zeros(*z.shape[:-1], 1, dtype=torch.int64), {})


LEARNED = {"codebook_loss": 1.0, "commitment_loss": 0.25}
SIGNS = {"commitment_loss": 0.008, "entropy_loss": 0.004}  # as the recipe wetok-nano, which weighs the error by 10
POST_TRAINING_BITS = 3
FAMILIES = {
    "vq": Family(
        partial(create, "vq", 8, codebook_size=4096, distance="cosine"),
        "4096 unit vectors of 8, by gradient (LlamaGen)",
        LEARNED,
    ),
    "vq-ema": Family(
        partial(create, "vq", 8, codebook_size=4096, **EMA_CODEBOOK),
        "4096 vectors of 8, EMA, k-means start, revival (SoundStream)",
        {"commitment_loss": 0.25},
    ),
    "residual-vq": Family(
        partial(create, "residual-vq", 8, codebook_size=64, num_quantizers=2, **EMA_CODEBOOK),
        "2x64 vectors of 8, EMA, k-means start, revival (SoundStream)",
        {"commitment_loss": 0.25},
    ),
    "product-vq": Family(
        partial(create, "product-vq", 16, codebook_sizes=(64, 64), **EMA_CODEBOOK),
        "2x64 vectors of 8, EMA, k-means start, revival",
        {"commitment_loss": 0.25},
    ),
    "additive-vq": Family(
        partial(create, "additive-vq", 8, codebook_sizes=(64, 64)), "2x64 vectors of 8, by gradient, beam of 8", LEARNED
    ),
    "factorized-vq": Family(
        partial(create, "factorized-vq", 16, codebook_sizes=(64, 64)),
        "2x64 unit vectors of 8, disentangled (FQGAN)",
        {**LEARNED, "entropy_loss": 0.03, "disentanglement_loss": 0.1},
    ),
    "shared-mapping-vq": Family(
        partial(create, "shared-mapping-vq", 16, dims=(8, 8), codebook_size=4096),
        "4096 pairs of unit vectors of 8 (TokenFlow, without its teacher)",
        LEARNED,
    ),
    "sim-vq": Family(
        partial(create, "sim-vq", 32, codebook_size=4096), "4096 vectors of 32, frozen behind a linear map", LEARNED
    ),
    "ibq": Family(
        partial(create, "ibq", 32, codebook_size=4096),
        "4096 vectors of 32, index backpropagation (IBQ)",
        {"index_loss": 1.0, "commitment_loss": 1.0, "codebook_loss": 0.25, "entropy_loss": 0.05},
    ),
    "gumbel-vq": Family(
        partial(create, "gumbel-vq", 32, codebook_size=4096),
        "4096 vectors of 32, drawn at temperature 1 (VQGAN)",
        {"kl_loss": 1e-8},
    ),
    "fsq": Family(partial(create, "fsq", 4, levels=(8, 8, 8, 8)), "levels 8, 8, 8, 8"),
    "lfq": Family(partial(create, "lfq", 12, temperature=1.0), "12 signs", SIGNS),
    "grouped-lfq": Family(
        partial(create, "grouped-lfq", 12, num_groups=2, temperature=1.0), "2 groups of 6 signs (as wetok-nano)", SIGNS
    ),
    # Unit vectors: at this temperature the soft assignment is about as steep as that of LFQ.
    "bsq": Family(partial(create, "bsq", 12, temperature=0.1), "12 signs on the sphere", SIGNS),
    "dimensionwise": Family(
        partial(NoQuantizer, 4), "4 channels of 8 levels, after training without a quantizer (TokenBridge)"
    ),
}


class ResidualBlock(nn.Sequential):
    """`[B, channels, H, W]` to the same."""

    def __init__(self, channels: int):
        super().__init__(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def make_encoder() -> nn.Sequential:
    """Images `[B, 3, H, W]` to `[B, WIDTH, H / 8, W / 8]`."""
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 4, stride=4),
        ResidualBlock(WIDTH),
        nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
        ResidualBlock(WIDTH),
        ResidualBlock(WIDTH),
        nn.GroupNorm(8, WIDTH),
        nn.SiLU(),
    )


def make_decoder() -> nn.Sequential:
    """`[B, WIDTH, h, w]` to images `[B, 3, 8 h, 8 w]`."""
    return nn.Sequential(
        ResidualBlock(WIDTH),
        ResidualBlock(WIDTH),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        ResidualBlock(WIDTH),
        nn.GroupNorm(8, WIDTH),
        nn.SiLU(),
        nn.Conv2d(WIDTH, 48, 3, padding=1),
        nn.PixelShuffle(4),
    )


class AblationTokenizer(Tokenizer):
    """Image tokenizer with a quantizer of any family. Shared parts are built first, so that a seed makes them equal."""

    input_mean = 0.5
    input_std = 0.5

    def __init__(self, name: str, build: Callable[[], Quantizer]):
        encoder, decoder, quantizer = make_encoder(), make_decoder(), build()
        super().__init__(
            TokenizerSpec(
                name=name,
                modality="image",
                quantizer=name,
                codebook_sizes=quantizer.codebook_sizes,
                downsample=(8, 8),
                channels=3,
                code_license="Apache-2.0",
                weights_license="Apache-2.0",
                paper="",
                source="benchmarks/quantizer_ablation.py",
            )
        )
        self.encoder, self.decoder, self.quantizer = encoder, decoder, quantizer
        self.project_in = nn.Conv2d(WIDTH, quantizer.dim, 1)
        self.project_out = nn.Conv2d(quantizer.dim, WIDTH, 1)
        # Latents start at about unit deviation: the mean square of a normal value after a SiLU is 0.356.
        nn.init.normal_(self.project_in.weight, std=(0.356 * WIDTH) ** -0.5)

    def to_latent(self, signal: Tensor) -> Tensor:
        return self.project_in(self.encoder(signal))

    def from_latent(self, latent: Tensor) -> Tensor:
        return self.decoder(self.project_out(latent))


def make_tokenizer(family: str, seed: int) -> AblationTokenizer:
    """Return a tokenizer with random weights; those of encoder and decoder depend on the seed alone."""
    torch.manual_seed(seed)
    return AblationTokenizer(family, FAMILIES[family].build)


def make_recipe(family: str, seed: int, steps: int) -> Recipe:
    return Recipe(
        tokenizer=family,
        data=ImageData(crop=CROP, workers=0),
        losses={"l2": SQUARED_ERROR, **FAMILIES[family].weights},
        optimizer=Optimizer(learning_rate=LEARNING_RATE, warmup_steps=min(50, steps), ema_decay=0.99),
        steps=steps,
        batch_size=BATCH,
        seed=seed,
        validation=Validation(items=VALIDATION_ITEMS, metrics=("psnr",)),
    )


def run(recipe: Recipe, training: Signals, validation: Signals) -> dict[str, float]:
    """Train and measure one tokenizer."""
    trainer = Trainer(Fabric(accelerator="cpu", devices=1), recipe, make_tokenizer(recipe.tokenizer, recipe.seed))
    crops = Crops(training, recipe.data, recipe.seed)
    batches = iter(training_batches(crops, recipe, step=0))
    seconds = []
    while trainer.step < recipe.steps:
        started = time.process_time()
        trainer.advance(batches)
        seconds.append(time.process_time() - started)
    trainer.check_finite()
    tokenizer = trainer.averaged()
    if recipe.tokenizer == "dimensionwise":
        calibration = training_batches(crops, recipe, step=recipe.steps - min(recipe.steps, CALIBRATION_BATCHES))
        tokenizer = zoo.discretize(
            tokenizer, POST_TRAINING_BITS, calibration=map(to_signal, calibration), value_range=3.0
        )
    excerpts = validation_batches(Excerpts(validation, ImageData(crop=VALIDATION_CROP)), recipe)
    figures = validate(tokenizer, excerpts, choose_metrics(recipe.validation, tokenizer)).metrics
    return {
        "psnr": figures["psnr"],
        "usage": figures["usage"],
        "perplexity": figures["perplexity"],
        "bits": figures["entropy"] * tokenizer.spec.num_codebooks,
        "bits_paid": tokenizer.spec.bits_per_position,
        "seconds_per_step": median(seconds),
    }


def settings(recipe: Recipe, data: Path) -> dict[str, object]:
    """What decides a run's figures; a run with the same settings in the file is not repeated."""
    return {
        "family": recipe.tokenizer,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "data": data.name,
        "crop": CROP,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "losses": recipe.losses,
        "quantizer": FAMILIES[recipe.tokenizer].setting,
    }


def read_records(path: Path | None) -> list[dict]:
    return json.loads(path.read_text()) if path and path.is_file() else []


def rows(records: Sequence[dict]) -> list[list[str]]:
    """A row of the table for each family, by falling PSNR."""
    by_family: dict[str, list[dict]] = {}
    for record in records:
        by_family.setdefault(record["settings"]["family"], []).append(record["figures"])
    ordered = sorted(by_family.items(), key=lambda item: -mean(run["psnr"] for run in item[1]))

    def cell(runs: list[dict], name: str, digits: int, factor: float = 1.0) -> str:
        values = [factor * run[name] for run in runs]
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"

    return [
        [
            family,
            FAMILIES[family].setting,
            cell(runs, "psnr", 2),
            cell(runs, "usage", 1, 100),
            cell(runs, "perplexity", 0),
            f"{cell(runs, 'bits', 2)} of {runs[0]['bits_paid']:.4g}",
            cell(runs, "seconds_per_step", 1, 1000),
            str(len(runs)),
        ]
        for family, runs in ordered
    ]


HEADINGS = ("family", "quantizer", "PSNR, dB", "usage, %", "perplexity", "bits", "ms a step", "seeds")


def print_table(records: Sequence[dict], *, markdown: bool) -> None:
    if markdown:
        for row in (HEADINGS, ["---"] * len(HEADINGS), *rows(records)):
            print(f"| {' | '.join(row)} |")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADINGS[:2])
    for heading in HEADINGS[2:]:
        table.add_column(heading, justify="right")
    for row in rows(records):
        table.add_row(*row)
    Console(width=160).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"steps of each run (default: {STEPS})")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder with train and val in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the runs, old and new")
    parser.add_argument("--markdown", action="store_true", help="only print FILE as a table for the README")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    wanted = [make_recipe(family, seed, options.steps) for seed in options.seeds for family in options.families]
    done = read_records(options.json)
    known = [record["settings"] for record in done]
    missing = [recipe for recipe in wanted if settings(recipe, options.data) not in known]
    if missing and not options.markdown:
        spec = make_tokenizer(options.families[0], 0).spec
        training = Signals(options.data / "train", spec, missing[0].data)
        validation = Signals(options.data / "val", spec, missing[0].data, VALIDATION_ITEMS)
        for recipe in missing:
            figures = run(recipe, training, validation)
            done.append({"settings": settings(recipe, options.data), "figures": figures})
            print(f"{recipe.tokenizer}, seed {recipe.seed}: {figures['psnr']:.2f} dB", file=sys.stderr)
            if options.json:
                with atomic_path(options.json, overwrite=True) as temporary:
                    temporary.write_text(json.dumps(done, indent=2))
    asked = [settings(recipe, options.data) for recipe in wanted]
    print_table([record for record in done if record["settings"] in asked], markdown=options.markdown)


if __name__ == "__main__":
    main()
