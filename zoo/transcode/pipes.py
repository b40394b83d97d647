"""Streams of bytes: raw samples to codes and back, as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec
    from zoo.tokenizer import Tokenizer

BLOCK = 65536  # bytes that are read at most at once
SAMPLES: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


def encode_pcm(
    tokenizer: Tokenizer,
    source: BinaryIO,
    target: BinaryIO,
    *,
    pcm: str = "s16le",
    num_codebooks: int | None = None,
) -> None:
    """Read raw samples until their end, and write each frame's codes as soon as they are certain.

    Args:
        tokenizer: a causal tokenizer of audio.
        source: samples of `spec.sample_rate` as FFmpeg's formats of the same names have them: "s16le", 16-bit integers
            of 32768 for 1.0, or "f32le", floats; little-endian; those of several channels alternate.
        target: for each frame its codes, one of each codebook, as little-endian integers of 16 bits, or of 64 bits if a
            codebook has more than 32,768 entries.
        num_codebooks: as in `Tokenizer.encode`.

    Raises:
        InputError: a tokenizer that is not causal, another `pcm`, bytes that end within a sample, or samples that are
            not finite.
    """
    dtype = _sample_type(pcm)
    with tokenizer.stream(**({} if num_codebooks is None else {"num_codebooks": num_codebooks})) as stream:
        for values in _arrays(source, dtype, tokenizer.spec.channels, "sample"):
            signal = torch.from_numpy(values.T.astype(np.float32) / (32768 if dtype.kind == "i" else 1))
            _write_codes(stream.encode(signal[None]), tokenizer.spec, target)
        _write_codes(stream.flush(), tokenizer.spec, target)


def decode_pcm(
    tokenizer: Tokenizer,
    source: BinaryIO,
    target: BinaryIO,
    *,
    pcm: str = "s16le",
    num_codebooks: int | None = None,
) -> None:
    """Read codes until their end, and write each frame's samples at once.

    Args:
        tokenizer: a causal tokenizer of audio.
        source: codes as `encode_pcm` writes them. num_codebooks: how many there are of each frame; None: as many as
            `Tokenizer.encode` returns by default.
        target: samples in the format `pcm`, as `encode_pcm` reads them; integers are clipped.

    Raises:
        InputError: a tokenizer that is not causal, another `pcm`, bytes that end within a frame, or codes out of range.
    """
    dtype, spec = _sample_type(pcm), tokenizer.spec
    with tokenizer.stream(**({} if num_codebooks is None else {"num_codebooks": num_codebooks})) as stream:
        number = len(spec.default_sizes) if num_codebooks is None else num_codebooks
        for values in _arrays(source, _code_type(spec), number, "frame of codes"):
            signal = stream.decode(torch.from_numpy(values.T.astype(np.int64))[None])[0].T.float().cpu()
            if dtype.kind == "i":
                signal = (signal.double() * 32768).round().clamp(-32768, 32767)
            target.write(signal.numpy().astype(dtype).tobytes())
            target.flush()


def _sample_type(pcm: str) -> np.dtype[Any]:
    if pcm not in SAMPLES:
        raise InputError(f"expected pcm among {', '.join(SAMPLES)}, got {pcm!r}")
    return SAMPLES[pcm]


def _code_type(spec: TokenizerSpec) -> np.dtype:
    return np.dtype("<i2" if max(spec.codebook_sizes) <= 32768 else "<i8")


def _arrays(source: BinaryIO, dtype: np.dtype, width: int, what: str) -> Iterator[np.ndarray]:
    """Yield what has arrived, as `[rows, width]`; the bytes of a row that is not complete wait for the rest."""
    read = getattr(source, "read1", source.read)  # which does not wait until a whole block is there
    waiting, size = b"", width * dtype.itemsize
    while block := read(BLOCK):
        waiting += block
        whole = len(waiting) // size * size
        if whole:
            yield np.frombuffer(waiting[:whole], dtype).reshape(-1, width)
        waiting = waiting[whole:]
    if waiting:
        raise InputError(f"the input ends within a {what}: {len(waiting)} of {size} bytes")


def _write_codes(codes: Tensor, spec: TokenizerSpec, target: BinaryIO) -> None:
    if codes.shape[2]:
        target.write(codes[0].T.cpu().numpy().astype(_code_type(spec)).tobytes())
        target.flush()
