"""Share of codes that differ between a clip in a padded batch and the same clip alone: transformers', and zoo's.

    python benchmarks/padded_batches.py [--clips 10] [--json FILE]

Each network is small and has random weights; both sides have the same ones, by way of the folder that transformers
writes. The batch of transformers is what the feature extractor of the network makes of a list of clips, with its masks
where the network takes them; a clip alone is what it makes of that clip. Clips are noise of 0.5 to 3 seconds. With
trained weights and speech the shares are others, and no less above zero.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor

import zoo
from zoo.modalities.resampling import resample

NAMES = (
    *("encodec-24khz", "encodec-32khz", "dac-44khz", "xcodec-hubert-librispeech", "higgs-audio-v2", "xcodec2"),
    "neucodec",
)
EXTRACTORS = {
    "encodec": "EncodecFeatureExtractor",
    "xcodec2": "Xcodec2FeatureExtractor",
    "neucodec": "NeuCodecFeatureExtractor",
}
WITHOUT_MASKS = "DacFeatureExtractor"  # of the networks that take none


def network(name: str) -> Any:
    """Return the small network of transformers that a variant is built on, with random weights."""
    variant = zoo.info(name)
    architecture: Any = variant.builder
    settings = architecture.checked({**variant.config["settings"], **architecture.small["sizes"]})
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(architecture.model_type, **settings)
    ).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith("codebook.embed"):
            tensor.normal_(std=0.1)  # where transformers has zeros
    return model


def encoder(name: str, model: Any) -> Callable[[list[Tensor]], Tensor]:
    """Return the function that encodes clips `[samples]` as one batch, as the documentation of transformers does."""
    kind, spec = model.config.model_type, zoo.info(name).spec
    rate = 16000 if kind == "neucodec" else spec.sample_rate
    options = {} if kind in ("xcodec2", "neucodec", "encodec") else {"hop_length": spec.hop_length}
    extractor = getattr(transformers, EXTRACTORS.get(kind, WITHOUT_MASKS))(sampling_rate=rate, **options)

    @torch.no_grad()
    def encode(clips: list[Tensor]) -> Tensor:
        arrays = [resample(clip, spec.sample_rate or 0, rate).numpy() for clip in clips]
        inputs = extractor(arrays, sampling_rate=rate, return_tensors="pt")
        if kind == "encodec":
            codes = model.encode(**inputs, bandwidth=model.config.target_bandwidths[-1]).audio_codes[0]
        elif EXTRACTORS.get(kind):
            codes = model.encode(**inputs).audio_codes
        else:
            codes = model.encode(inputs["input_values"]).audio_codes
        return codes.long()

    return encode


def share(together: Tensor, alone: list[Tensor]) -> float:
    """Return the share of the codes of clips alone, `[codebooks, frames]`, that are others in a batch."""
    pairs = [(batch[:, : clip.shape[1]], clip) for batch, clip in zip(together, alone, strict=True)]
    counts = [(int((batch != clip).sum()), clip.numel()) for batch, clip in pairs]
    return sum(different for different, _ in counts) / sum(number for _, number in counts)


def measure(name: str, number: int) -> dict[str, float]:
    """Return how many codes the clips have alone, and the share of them that differ in a batch, on both sides."""
    model, rate = network(name), zoo.info(name).spec.sample_rate or 0
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer = zoo.load(folder)
    generator = torch.Generator().manual_seed(0)
    lengths = [int(rate * (0.5 + 2.5 * clip / max(number - 1, 1))) + 7 * clip for clip in range(number)]
    clips = [0.3 * torch.randn(length, generator=generator) for length in lengths]
    encode = encoder(name, model)
    theirs = [encode([clip])[0] for clip in clips]
    ours = [tokenizer.encode(clip[None, None])[0] for clip in clips]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)[:, None]
    return {
        "codes": sum(codes.numel() for codes in theirs),
        "transformers": share(encode(clips), theirs),
        "zoo": share(tokenizer.encode(batch, lengths=torch.tensor(lengths)), ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    results = {}
    for name in NAMES:
        results[name] = measure(name, arguments.clips)
        theirs, ours = (f"{100 * results[name][side]:.2f} %" for side in ("transformers", "zoo"))
        print(f"{name:<28} {results[name]['codes']:>7} codes   transformers {theirs:>8}   zoo {ours:>7}", flush=True)
    if arguments.json:
        versions = {"transformers": transformers.__version__, "torch": str(torch.__version__)}
        arguments.json.write_text(
            json.dumps({**versions, "clips": arguments.clips, "results": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
