"""A candidate on one signal after the other: time, memory and reconstructions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from zoo.bench.candidates import Candidate
from zoo.bench.machine import PeakMemory
from zoo.bench.signals import Preprocessing
from zoo.errors import InputError, as_zoo_error
from zoo.modalities import Signal


class FileFailure(Exception):
    """A file that cannot be read or measured, or that a tokenizer refuses or fails on."""


class CodecFailure(Exception):
    """A classical codec that failed, with whatever error its library raised."""


@dataclass(frozen=True)
class Outcome:
    """The result of a candidate for one signal: it restores the signal from `payload`, of which `bytes` is the size."""

    bytes: float
    payload: Any
    reconstruction: Signal
    encode_seconds: float
    decode_seconds: float
    peak_bytes: int


class TimedCandidate:
    """A candidate that is timed; it handles its first signal twice, so that slow first calls do not count."""

    def __init__(self, candidate: Candidate, preprocessing: Preprocessing, device: str):
        self.candidate, self.preprocessing, self.device = candidate, preprocessing, device
        self._memory: PeakMemory | None = None

    def __call__(self, signal: Signal) -> Outcome:
        """Compress and restore a signal.

        Raises:
            FileFailure: a tokenizer refuses the signal, or fails on it.
            CodecFailure: a classical codec fails.
        """
        try:
            if self._memory is None:
                self.candidate.release()
                self._memory = PeakMemory(self.device)
                self._measured(signal, self._memory)
            return self._measured(signal, self._memory)
        except Exception as error:
            if self.candidate.baseline:
                raise CodecFailure(f"{type(error).__name__}: {error}") from error
            raise FileFailure(f"{self.candidate.label}: {as_zoo_error(error)}") from error

    def _measured(self, signal: Signal, memory: PeakMemory) -> Outcome:
        batch, kind, candidate = signal.values[None], self.preprocessing.kind, self.candidate
        with memory.watch():
            start = time.perf_counter()
            own = self.preprocessing.to_candidate(batch, candidate.sample_rate, candidate.channels)
            num_bytes, payload = candidate.compress(own)
            middle = time.perf_counter()
            restored = candidate.restore(payload, own)
            restored = self.preprocessing.from_candidate(
                restored, candidate.sample_rate, self.preprocessing.size(batch)
            )
            end = time.perf_counter()
        if not num_bytes >= 0:
            raise InputError(f"expected a number of bytes, got {num_bytes}")
        if restored.shape != batch.shape:
            raise InputError(f"expected {list(batch.shape)} back, got {list(restored.shape)}")
        restored = kind.like(restored, batch)
        kind.check_values(restored)
        reconstruction = Signal(restored[0], signal.frame_rate)
        return Outcome(num_bytes, payload, reconstruction, middle - start, end - middle, memory.bytes)
