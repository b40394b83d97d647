"""Streams: codes of a signal that arrives in parts, and the signal of codes that do."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.layers.causal import Memory

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer


IN_WINDOWS = (  # why a system of video cannot stream
    "a clip is encoded in windows of spec.chunk_frames frames, which do not see each other; encode each window when "
    "its frames are there"
)


class Stream:
    """A stream of one signal, or of several of equal length, in each direction; `Tokenizer.stream` makes it.

        with tokenizer.stream() as stream:
            for samples in microphone:               # [1, 1, any number]
                codes = stream.encode(samples)       # [1, num_codebooks, frames that are complete now]
                audio = stream.decode(codes)         # [1, 1, frames * hop_length]
            audio = stream.decode(stream.flush())

    One after the other, the codes are those of the whole signal, encoded with the stream's options (rounding can decide
    between two rows that are equally near), and what they decode to differs from the whole by rounding. The stream
    holds all state: its size does not grow, the tokenizer stays as it is, and may serve several streams at once.
    """

    def __init__(self, tokenizer: Tokenizer, options: dict[str, Any]):
        self._tokenizer, self._options = tokenizer, options
        self._encoder: Memory = {}
        self._decoder: Memory = {}
        self._pending: Tensor | None = None  # samples of the frame that is not complete
        self._decoded: int | None = None  # batch of the codes
        self._ended = self._closed = False

    def encode(self, samples: Tensor) -> Tensor:
        """Take the next samples, and return the codes that have become certain.

        Args:
            samples: `[B, channels, samples]` as `Tokenizer.encode` takes them, any number of them, also none.

        Returns:
            int64 `[B, num_codebooks, frames]`, the frames that these samples complete; often none.

        Raises:
            InputError: as `Tokenizer.encode`; another batch size than before; after `flush` or the end of the block.
        """
        self._check_open()
        if self._ended:
            raise InputError("the stream was flushed, so its signal is complete; stream() starts another")
        samples = self._checked(samples)
        if self._pending is not None:
            if len(samples) != len(self._pending):
                raise InputError(f"expected a batch of {len(self._pending)}, as before, got {len(samples)}")
            samples = torch.cat([self._pending, samples], dim=2)
        step = self._tokenizer.spec.hop_length
        complete = samples.shape[2] // step * step
        self._pending = samples[:, :, complete:].clone()
        return self._codes(samples[:, :, :complete])

    def flush(self) -> Tensor:
        """End the signal that is encoded, and return the codes of its last, incomplete frame.

        Returns:
            int64 `[B, num_codebooks, 1]`, or `[B, num_codebooks, 0]` if the last frame was complete. They can still be
            decoded.

        Raises:
            InputError: after the end of the block.
        """
        self._check_open()
        rest, self._pending, self._ended = self._pending, None, True
        if rest is None:
            rest = torch.empty(1, self._tokenizer.spec.channels, 0)
        return self._codes(rest)

    def decode(self, codes: Tensor) -> Tensor:
        """Take the next codes, and return their signal.

        Args:
            codes: `[B, num_codebooks, frames]` as `Tokenizer.decode` takes them, any number of frames, also none.

        Returns:
            `[B, channels, frames * hop_length]`.

        Raises:
            InputError: as `Tokenizer.decode`; another batch size than before; after the end of the block.
        """
        self._check_open()
        tokenizer = self._tokenizer
        if isinstance(codes, Tensor) and codes.ndim == 3 and len(codes) and not codes.shape[2]:
            return torch.empty(len(codes), tokenizer.spec.channels, 0, device=tokenizer.device, dtype=tokenizer.dtype)
        if self._decoded is not None and len(codes) != self._decoded:
            raise InputError(f"expected codes of a batch of {self._decoded}, as before, got {len(codes)}")
        signal = tokenizer.decode(codes, memory=self._decoder)
        self._decoded = len(codes)
        return signal

    def close(self) -> None:
        """Release the state; the end of the block does so."""
        self._closed, self._pending = True, None
        self._encoder.clear()
        self._decoder.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("the stream is closed; stream() starts another")

    def _checked(self, samples: Tensor) -> Tensor:
        tokenizer = self._tokenizer
        modality, spec = tokenizer.modality, tokenizer.spec
        nothing = isinstance(samples, Tensor) and modality.has_layout(samples, spec) and samples.shape[2] == 0
        if not nothing or not len(samples):
            modality.check(samples, spec)
        return samples.to(tokenizer.device, tokenizer.dtype)

    def _codes(self, samples: Tensor) -> Tensor:
        tokenizer = self._tokenizer
        if samples.shape[2]:
            return tokenizer.encode(samples, memory=self._encoder, **self._options)
        number = self._options.get("num_codebooks") or len(tokenizer.spec.default_sizes)
        return torch.empty(len(samples), number, 0, dtype=torch.int64, device=tokenizer.device)
