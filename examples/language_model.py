"""A language model of speech, from recordings to sound: tokens by zoo, a small GPT of transformers, on the CPU.

    python examples/language_model.py recordings/ --out run/ [--minutes 5]

It tokenizes a folder of recordings into Parquet, turns codes into ids with a begin marker, trains a GPT of 2.5 million
parameters on them, and writes `sample-1.flac`, ...: each the first second of a recording and what the model makes of
it. The same commands again go on where they were stopped: tokens that are there are kept.

Needs the extras `scale` and `transformers`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import datasets
import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

import zoo
from zoo import corpus, media
from zoo.codes import Pattern

CONTEXT = 384  # tokens: five seconds at 75 tokens a second
PROMPT_SECONDS = 1.0


def read_ids(folder: Path, pattern: Pattern) -> list[Tensor]:
    """The ids of each item of a corpus in Parquet."""
    rows = datasets.load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")
    codes = (torch.tensor(row["codes"])[None] for row in rows)  # [1, num_codebooks, frames]
    return [pattern.ids(one)[0] for one in codes]


def batch_of(stream: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random excerpts `[size, CONTEXT]` of one long row of ids."""
    starts = torch.randint(len(stream) - CONTEXT, (size,), generator=generator)
    return torch.stack([stream[start : start + CONTEXT] for start in starts])


def loss_of(model: GPT2LMHeadModel, ids: Tensor) -> Tensor:
    """Mean negative log-likelihood of the next token, in nats."""
    logits = model(ids).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train(model: GPT2LMHeadModel, stream: Tensor, held_out: Tensor, minutes: float) -> None:
    """Train for some minutes, with a learning rate that falls to zero, and print losses in bits a token."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    start, step, reported = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 50) * (1 - share)
        loss = loss_of(model, batch_of(stream, 8, generator))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if share >= reported:
            print(f"step {step}: {loss.item() / math.log(2):.2f} bits a token", flush=True)
            reported += 0.1
    model.eval()
    with torch.no_grad():
        held = torch.stack([loss_of(model, part[None]) for part in held_out.unfold(0, CONTEXT, CONTEXT)]).mean()
    print(f"{step} steps; held-out recordings: {held.item() / math.log(2):.2f} bits a token", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path, help="folder of recordings")
    parser.add_argument("--out", type=Path, default=Path("language-model"))
    parser.add_argument("--tokenizer", default="wavtokenizer-nano", help="a tokenizer of audio with one codebook")
    parser.add_argument("--minutes", type=float, default=5.0, help="time of training")
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()

    tokens = arguments.out / "tokens"
    found = corpus.tokenize(arguments.tokenizer, arguments.recordings, tokens)
    print(
        f"{found.items} recordings, {found.amount / 60:.1f} min, {found.tokens:,} tokens, {found.entropy[0]:.2f} bits"
    )

    tokenizer = zoo.load(arguments.tokenizer)
    pattern = Pattern(tokenizer.spec.codebook_sizes, markers=("begin",))
    items = read_ids(tokens, pattern)
    held = max(1, len(items) // 20)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=pattern.vocabulary_size, n_positions=CONTEXT, n_embd=192, n_layer=4, n_head=6,
        bos_token_id=pattern.special_ids["begin"], eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    train(model, torch.cat(items[held:]), torch.cat(items[:held]), arguments.minutes)

    prompt = 1 + round(PROMPT_SECONDS * (tokenizer.spec.frame_rate or 0))
    for number, ids in enumerate(items[: arguments.samples], 1):
        # Only codes are drawn: an item ends where the context does.
        made = model.generate(
            ids[None, :prompt], do_sample=True, top_k=50, max_length=CONTEXT, suppress_tokens=[config.bos_token_id]
        )
        codes = pattern.codes(made)
        file = arguments.out / f"sample-{number}.flac"
        media.write_audio(file, tokenizer.decode(codes)[0].clamp(-1, 1), tokenizer.spec.sample_rate, overwrite=True)
        print(file)


if __name__ == "__main__":
    main()
