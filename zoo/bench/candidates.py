"""What is compared: tokenizers at every rate that they support. The codecs are in `zoo.bench.baselines`."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo import loading, media
from zoo.bench.signals import Preprocessing
from zoo.codes import packed_size
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

WORDS = {
    "num_tokens": "{} tokens",
    "num_codebooks": "{} codebooks",
    "quality": "quality {}",
    "kbit/s": "{} kbit/s",
    "CRF": "CRF {}",
    "step": "{} Å",
}


class Candidate(ABC):
    """One way to make a signal small at one rate.

    Attributes:
        family: the curve that it belongs to.
        setting: what distinguishes it in its family.
        label: both in words, as `WORDS` has them.
        baseline: whether it is no tokenizer.
        note: what is counted as its bytes, where that needs saying.
    """

    baseline = False
    note = ""

    def __init__(self, family: str, setting: dict[str, Any]):
        self.family, self.setting = family, setting

    @property
    def label(self) -> str:
        words = [WORDS[name].format(value) for name, value in self.setting.items()]
        return ", ".join([self.family, *words])

    @abstractmethod
    def identity(self) -> str:
        """All that decides what it makes of a signal."""

    @abstractmethod
    def compress(self, signal: Tensor) -> tuple[float, Any]:
        """A preprocessed batch of one to the bytes that it takes, and what `restore` makes a signal of."""

    @abstractmethod
    def restore(self, payload: Any, size: tuple[int, ...]) -> Tensor:
        """What `compress` gave, to a float32 batch of one on the CPU, cropped to `size`."""

    def release(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what it holds in memory; it can be used again."""


class Source:
    """A tokenizer that is loaded when it is needed and can be let go.

    Attributes:
        spec, parameters: of the tokenizer.
        weights_sha256: over names, types, shapes and values of all its tensors.
        network_sha256: over its spec and the arguments of its architecture.
        settings: one for each rate that it supports.

    Args:
        name: as `zoo.load` takes it.
        device: where it runs.

    Raises:
        As `zoo.load`; InputError of a system that only encodes.
    """

    def __init__(self, name: str | Path, device: str = "cpu"):
        self.device = device
        self._load = lru_cache(maxsize=1)(lambda: loading.load(name, device=device))
        tokenizer = self.tokenizer()
        tokenizer.check_decodes()
        self.spec: TokenizerSpec = tokenizer.spec
        self.parameters = tokenizer.num_parameters
        self.weights_sha256 = weights_sha256(tokenizer)
        network = repr((type(tokenizer).__name__, tokenizer.spec, sorted(tokenizer.arguments().items())))
        self.network_sha256 = hashlib.sha256(network.encode()).hexdigest()
        self.settings = settings(tokenizer)
        self.release()

    def tokenizer(self) -> Tokenizer:
        return self._load()

    def release(self) -> None:
        self._load.cache_clear()


class TokenizerCandidate(Candidate):
    """A tokenizer at one rate; its bytes are those of `zoo.codes.pack`, which has no header.

    Audio is resampled to the tokenizer's rate and back where `preprocessing` has another.
    """

    note = "packed codes without header"

    def __init__(self, family: str, source: Source, setting: dict[str, int], preprocessing: Preprocessing, seed: int):
        super().__init__(family, setting)
        self.source, self.preprocessing, self.seed = source, preprocessing, seed
        self.sizes = source.spec.codebook_sizes[: setting.get("num_codebooks")]

    def identity(self) -> str:
        return json.dumps(
            {
                "variant": self.source.spec.name,
                "weights_sha256": self.source.weights_sha256,
                "network_sha256": self.source.network_sha256,
                "setting": self.setting,
                "seed": self.seed,
                "device": torch.device(self.source.device).type,
                "zoo": zoo.__version__,
                "torch": torch.__version__,
            }
        )

    def compress(self, signal: Tensor) -> tuple[int, Tensor]:
        """Bytes and codes: of `num_tokens` the first, of `num_codebooks` likewise."""
        tokenizer = self.source.tokenizer()
        if tokenizer.spec.modality == "audio":
            signal = media.resample(signal, self.preprocessing.sample_rate, tokenizer.spec.sample_rate)
            signal = media.to_channels(signal, tokenizer.spec.channels)
        options = self._options(tokenizer.encode_options)
        codes = tokenizer.encode(signal.to(tokenizer.device), **options).cpu()
        codes = codes[:, : len(self.sizes)]
        if "num_tokens" in self.setting:
            codes = codes[:, :, : self.setting["num_tokens"]]
        return packed_size(self.sizes, codes.shape), codes

    def restore(self, payload: Tensor, size: tuple[int, ...]) -> Tensor:
        tokenizer = self.source.tokenizer()
        spec, rate = tokenizer.spec, self.preprocessing.sample_rate
        missing = spec.num_codebooks - payload.shape[1]  # `decode` takes all codebooks, and uses the first of them
        codes = torch.cat([payload, payload.new_zeros(1, missing, *payload.shape[2:])], dim=1) if missing else payload
        options = self._options(tokenizer.decode_options)
        own_size = (-(-size[0] * spec.sample_rate // rate),) if spec.modality == "audio" else size
        signal = tokenizer.decode(codes.to(tokenizer.device), size=own_size, **options).float().cpu()
        if spec.modality == "audio":
            signal = media.to_channels(signal, self.preprocessing.channels)
            signal = media.resample(signal, spec.sample_rate, rate)[..., : size[0]]
        return signal

    def release(self) -> None:
        self.source.release()

    def _options(self, accepted: tuple[str, ...]) -> dict[str, Any]:
        options = {name: value for name, value in self.setting.items() if name in accepted}
        if "generator" in accepted:
            options["generator"] = torch.Generator(self.source.device).manual_seed(self.seed)
        return options


def settings(tokenizer: Tokenizer) -> list[dict[str, int]]:
    """One setting for each rate: 1, 2, 4, ... and all tokens, or codebooks, where the first few decode; else one."""
    spec = tokenizer.spec
    if spec.tail_drop:
        return [{"num_tokens": number} for number in (*doublings(spec.num_tokens), spec.num_tokens)]
    if "num_codebooks" in tokenizer.decode_options:
        return [{"num_codebooks": number} for number in (*doublings(spec.num_codebooks), spec.num_codebooks)]
    return [{}]


def doublings(end: int) -> list[int]:
    """1, 2, 4, ... below `end`."""
    return [2**power for power in range((end - 1).bit_length())]


def weights_sha256(tokenizer: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
