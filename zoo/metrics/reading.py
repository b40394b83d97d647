"""Whether text and words survive: what networks read in images and hear in speech, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightsUnavailableError
from zoo.media import resample
from zoo.metrics.base import check_images
from zoo.metrics.networks import HubWeights, to_bytes
from zoo.metrics.speech import SPEECH_RATE, check_pair

WHISPER = HubWeights(
    network="Whisper tiny",
    repository="openai/whisper-tiny",
    files=("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "generation_config.json"),
)
SPEAKER = HubWeights(
    network="the speaker network of WavLM base",
    repository="microsoft/wavlm-base-sv",
    files=("config.json", "pytorch_model.bin"),
)


def character_error_rate(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Edit distance of the texts that are read in the two, over the characters of the original's.

    The text is read by the networks in the package rapidocr-onnxruntime (PP-OCRv4, Apache-2.0), which find lines and
    read them; spaces do not count, since they are read badly. What is wrong in the original's text is no error.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        float64 `[B]`, at least 0, lower is better; above 1 where more text is read than there was. NaN where no text is
        found in the original.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
        WeightsUnavailableError: rapidocr-onnxruntime is not installed.
    """
    check_images(reconstruction, original)
    if reason := reader_missing():
        raise WeightsUnavailableError(f"this metric {reason}")
    texts = [[_read(image.tobytes(), image.shape) for image in _pixels(batch)] for batch in (reconstruction, original)]
    rates = [error_rate(text, wanted) for text, wanted in zip(*texts, strict=True)]
    return torch.tensor(rates, dtype=torch.float64, device=original.device)


def word_error_rate(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Differential word error rate (dWER): words heard in the reconstruction, against those heard in the original.

    Whisper tiny, decoded greedily in English, through transformers, over the first 30 seconds at 16 kHz; words are
    compared after Whisper's normalisation of English.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        sample_rate: Hz of both.

    Returns:
        float64 `[B]`, at least 0, lower is better. NaN where no word is heard in the original.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        WeightsUnavailableError: transformers is not installed, or Whisper's files are not on this machine.
    """
    check_pair(reconstruction, original, sample_rate)
    folder = WHISPER.require()
    clips = resample(torch.cat([reconstruction, original])[:, 0].detach().float(), sample_rate, SPEECH_RATE)
    heard = [_hear(str(folder), clip.cpu().numpy().tobytes()) for clip in clips]
    pairs = zip(heard[: len(original)], heard[len(original) :], strict=True)
    rates = [error_rate(words, wanted) for words, wanted in pairs]
    return torch.tensor(rates, dtype=torch.float64, device=original.device)


@torch.no_grad()
def wavlm_similarity(reconstruction: Tensor, original: Tensor, sample_rate: int) -> Tensor:
    """Cosine similarity of speaker embeddings by WavLM base with x-vectors, through transformers, at 16 kHz.

    Args:
        reconstruction, original: floating point `[B, 1, samples]` in [-1, 1]; resampled to 16 kHz.
        sample_rate: Hz of both.

    Returns:
        float32 `[B]` in [-1, 1], higher is better.

    Raises:
        InputError: a wrong type, shape, dtype or rate, two shapes that differ, or a sample that is not finite.
        WeightsUnavailableError: transformers is not installed, or WavLM's files are not on this machine.
    """
    check_pair(reconstruction, original, sample_rate)
    network = _speaker_network(str(SPEAKER.require())).to(original.device)
    pair = resample(torch.cat([reconstruction, original])[:, 0].float(), sample_rate, SPEECH_RATE)
    first, second = network(input_values=pair).embeddings.chunk(2)
    return torch.nn.functional.cosine_similarity(first, second)


def reader_missing() -> str | None:
    """Return how to get what reads text; None: it is there."""
    if find_spec("rapidocr_onnxruntime") is None:
        return 'needs the package rapidocr-onnxruntime: pip install "tokenizer-zoo[ocr]"'
    return None


def error_rate(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Return the insertions, deletions and replacements that make one sequence the other, over the length wanted."""
    if not wanted:
        return math.nan
    costs = np.arange(len(wanted) + 1)
    for row, symbol in enumerate(found, start=1):
        replaced = costs[:-1] + np.array([symbol != other for other in wanted])
        best = np.concatenate([[row], np.minimum(replaced, costs[1:] + 1)])
        costs = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))  # insertions, one each
    return float(costs[-1]) / len(wanted)


def _pixels(images: Tensor) -> list[np.ndarray]:
    """Return images as the reader takes them: uint8 `[H, W, 3]`, blue first."""
    return [np.ascontiguousarray(image.flip(0).permute(1, 2, 0).numpy()) for image in to_bytes(images).cpu()]


@lru_cache(maxsize=32)  # an original is read once for all its reconstructions
def _read(pixels: bytes, shape: tuple[int, ...]) -> str:
    lines, _ = _reader()(np.frombuffer(pixels, np.uint8).reshape(shape))
    return "".join("".join(text.split()) for _, text, _ in lines or [])


@cache
def _reader() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR()


@lru_cache(maxsize=32)
def _hear(folder: str, clip: bytes) -> tuple[str, ...]:
    processor, network = _whisper(folder)
    samples = np.frombuffer(clip, np.float32)
    features = processor(samples, sampling_rate=SPEECH_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        ids = network.generate(features, language="en", task="transcribe", do_sample=False, num_beams=1)
    text = processor.batch_decode(ids, skip_special_tokens=True)[0]
    return tuple(processor.tokenizer.normalize(text).split())


@cache
def _whisper(folder: str) -> tuple[Any, Any]:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    return WhisperProcessor.from_pretrained(folder), WhisperForConditionalGeneration.from_pretrained(folder).eval()


@cache
def _speaker_network(folder: str) -> Any:
    from transformers import WavLMForXVector

    return WavLMForXVector.from_pretrained(folder).eval()
