"""What is compared: the interface of a candidate, and tokenizers at every rate that they support.

The classical codecs are candidates too, in `zoo.bench.baselines`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo import loading
from zoo.codes import packed_size
from zoo.digest import weights_sha256
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

WORDS = {
    "num_tokens": "{} tokens",
    "num_codebooks": "{} codebooks",
    "num_scales": "{} scales",
    "quality": "quality {}",
    "kbit/s": "{} kbit/s",
    "CRF": "CRF {}",
    "step": "{} Å",
}


class Candidate(ABC):
    """A method at one setting: one way to make a signal small at one rate.

    A method of one's own is a subclass with the three methods `compress`, `restore` and `identity`::

        class Averages(zoo.bench.Candidate):
            modality = "image"

            def __init__(self):
                super().__init__("averages")

            def compress(self, signal):
                small = torch.nn.functional.avg_pool2d(signal, 8).mul(255).round().byte()
                return small.numel(), small

            def restore(self, payload, like):
                return torch.nn.functional.interpolate(payload / 255, size=like.shape[2:])

            def identity(self):
                return "averages 1.0"

    Attributes:
        modality: modality of the signals, a name in `zoo.modalities.NAMES`.
        sample_rate: Hz that audio has in `compress` and in what `restore` returns; None: that of the benchmark.
        channels: channels of that audio.
        method: name of the tokenizer or codec; the candidates of one method are the points of a curve.
        setting: what distinguishes the candidate from others of its method.
        label: both in words, as `WORDS` has them.
        baseline: whether the method is a classical codec.
        note: what is counted as its bytes, where that needs to be said.
    """

    modality: str
    sample_rate: int | None = None
    channels: int = 1
    baseline = False
    note = ""

    def __init__(self, method: str, setting: dict[str, Any] | None = None):
        self.method, self.setting = method, {} if setting is None else setting

    @property
    def label(self) -> str:
        words = [WORDS.get(name, f"{name} {{}}").format(value) for name, value in self.setting.items()]
        return ", ".join([self.method, *words])

    @abstractmethod
    def identity(self) -> str:
        """Return a text that names everything that the candidate's result for a signal depends on.

        A result is taken from the cache as long as this text, `method`, `setting` and the file are the same: name the
        version of the code and the hash of its weights.
        """

    @abstractmethod
    def compress(self, signal: Tensor) -> tuple[float, Any]:
        """Return the number of bytes that a preprocessed batch of one takes, and what `restore` needs.

        signal: float32, a batch of one in the public layout of the modality, on the CPU.
        """

    @abstractmethod
    def restore(self, payload: Any, like: Tensor) -> Tensor:
        """Turn what `compress` returned for `like` into a float32 batch of one on the CPU, of the same size."""

    def release(self) -> None:  # noqa: B027 - most hold nothing
        """Release the memory that the candidate holds; it can still be used."""


class LazyTokenizer:
    """A tokenizer that is loaded when it is needed and can be released.

    Attributes:
        spec, parameters: the tokenizer's spec and number of parameters.
        weights_sha256: hash over names, types, shapes and values of all tensors.
        network_sha256: hash over the spec and the arguments of the architecture.
        settings: one for each rate that the tokenizer supports.

    Args:
        name: the tokenizer, as `zoo.load` takes it.
        device: where the tokenizer runs.
        num_codebooks: numbers of residual codebooks to use, if it has some; None: as in `settings`.

    Raises:
        As `zoo.load`; InputError for a system that only encodes, or a number of codebooks that it does not have.
    """

    def __init__(self, name: str | Path, device: str = "cpu", num_codebooks: Sequence[int] | None = None):
        self.device = device
        self._load = lru_cache(maxsize=1)(lambda: loading.load(name, device=device))
        tokenizer = self.tokenizer()
        tokenizer.check_decodes()
        self.spec: TokenizerSpec = tokenizer.spec
        self.parameters = tokenizer.num_parameters
        self.weights_sha256 = weights_sha256(tokenizer)
        network = repr((type(tokenizer).__name__, tokenizer.spec, sorted(tokenizer.arguments().items())))
        self.network_sha256 = hashlib.sha256(network.encode()).hexdigest()
        self.settings = settings(tokenizer.spec, num_codebooks)
        self.release()

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, loaded if it is not."""
        return self._load()

    def release(self) -> None:
        """Release the tokenizer's memory."""
        self._load.cache_clear()

    def facts(self) -> dict[str, Any]:
        """Return the spec, the number of parameters and the hashes as JSON has them."""
        spec = json.loads(json.dumps(asdict(self.spec)))
        return {
            **spec,
            "weights_sha256": self.weights_sha256,
            "network_sha256": self.network_sha256,
            "parameters": self.parameters,
        }


class TokenizerCandidate(Candidate):
    """A tokenizer at one rate; its bytes are those of `zoo.codes.pack`, which writes no header."""

    note = "packed codes without header"

    def __init__(self, method: str, lazy: LazyTokenizer, setting: dict[str, int], seed: int):
        super().__init__(method, setting)
        self.lazy, self.seed = lazy, seed
        self.modality, self.sample_rate, self.channels = lazy.spec.modality, lazy.spec.sample_rate, lazy.spec.channels
        self.sizes = lazy.spec.codebook_sizes[: setting.get("num_codebooks")]

    def identity(self) -> str:
        return json.dumps(
            {
                "variant": self.lazy.spec.name,
                "weights_sha256": self.lazy.weights_sha256,
                "network_sha256": self.lazy.network_sha256,
                "setting": self.setting,
                "seed": self.seed,
                "device": torch.device(self.lazy.device).type,
                "zoo": zoo.__version__,
                "torch": torch.__version__,
            }
        )

    def compress(self, signal: Tensor) -> tuple[int, Tensor]:
        """Return bytes and codes: the first tokens, codebooks or scales of them where the setting says so."""
        tokenizer = self.lazy.tokenizer()
        options: dict[str, Any] = {**self.setting, **self._generator(tokenizer.encode_options)}
        codes = tokenizer.encode(signal.to(tokenizer.device), **options).cpu()
        return packed_size(self.sizes, codes.shape), codes

    def restore(self, payload: Tensor, like: Tensor) -> Tensor:
        tokenizer = self.lazy.tokenizer()
        options = self._generator(tokenizer.decode_options)
        return tokenizer.restore(payload.to(tokenizer.device), like, **options).float().cpu()

    def release(self) -> None:
        self.lazy.release()

    def _generator(self, accepted: tuple[str, ...]) -> dict[str, torch.Generator]:
        if "generator" not in accepted:
            return {}
        return {"generator": torch.Generator(self.lazy.device).manual_seed(self.seed)}


def settings(spec: TokenizerSpec, num_codebooks: Sequence[int] | None = None) -> list[dict[str, int]]:
    """Return one setting for each rate: 1, 2, 4, ... and all tokens, codebooks or scales where the first decode alone.

    num_codebooks: those that are wanted instead of 1, 2, 4, ..., if the codebooks are residual.

    Raises:
        InputError: a number of codebooks that the variant does not have.
    """
    partial = spec.partial_of(spec.resolution) if spec.resolution is not None else spec.partial
    if partial is None:
        return [{}]
    if spec.residual and num_codebooks is not None:
        numbers = [partial.check(number) for number in dict.fromkeys(num_codebooks)]
    else:
        numbers = [*doublings(partial.most), partial.most]
    return [{partial.option: number} for number in numbers]


def doublings(end: int) -> list[int]:
    """Return 1, 2, 4, ... below `end`."""
    return [2**power for power in range((end - 1).bit_length())]
