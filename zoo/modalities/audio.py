"""Audio: from files and arrays to tensors and back, sample rates and channels.

Audio is float32 `[channels, samples]`, nominally in [-1, 1].
"""

from __future__ import annotations

import io
import math
import re
import reprlib
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.modalities.base import FLOATING, Modality, Signal, check_ordinary
from zoo.modalities.files import MediaFile, as_file, check_seconds, check_start
from zoo.modalities.resampling import check_rate, check_resampling, resample
from zoo.modalities.sound_files import MOST_CHANNELS, Blocks, alike, blocks_of, joined

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec

FORMATS_WRITTEN = {".wav": "WAV", ".flac": "FLAC"}
LOUDEST = 8.0  # samples beyond it are probably not meant to be in [-1, 1]
LARGEST = 2.0**31  # and beyond this one, of 32-bit integers, they are not audio


class AudioModality(Modality):
    """Audio `[B, channels, samples]`, nominally in [-1, 1], at `spec.sample_rate`."""

    name = "audio"
    title = "Audio"
    noun = ("recording", "recordings")
    axes = ("samples",)
    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff")
    signal_suffix = ".wav"
    lossless_suffix = ".flac"
    options = ("sample_rate", "resample", "start", "seconds")
    networks_pad = True
    largest_decoded = 1e6
    network_range = (0.0, 1.0)
    raw_bits = 16
    unit = "/s"
    reference = "second"
    reference_size = None
    amount_unit = "seconds"
    rate_unit = "kbit/s"
    speed_unit = "x real time"
    rate_scale = 1e-3
    quality = ("mel_distance", "stoi")
    validation_metrics = ("mel_distance", "stoi")

    def amount(self, size: tuple[int, ...], sample_rate: float | None) -> float:
        if sample_rate is None:
            raise InputError("expected the sample rate of audio, got none")
        return size[0] / sample_rate

    def hint(self, x: Tensor) -> str:
        return "; add a channel axis: audio[:, None]" if x.ndim == 2 else ""

    def check_values(self, x: Tensor) -> None:
        super().check_values(x)
        peak = float(x.abs().max())
        if peak > LARGEST:
            raise InputError(f"expected audio in about [-1, 1], got samples up to {peak:.4g}")
        if peak > LOUDEST:  # the same words every time, so that Python shows them once
            warnings.warn(
                "audio is far outside [-1, 1] and its codes may mean little; 16-bit integers are divided by 32768",
                stacklevel=6,
            )

    def code_length(self, spec: TokenizerSpec, length: int, window: int | None) -> int:
        if spec.extra_frame:
            return length // spec.hop_length + 1
        features = max(length // spec.feature_hop, 1)
        frames = super().code_length(spec, features * spec.feature_hop, window)
        return frames + -frames % spec.frame_multiple

    def pad(self, x: Tensor, spec: TokenizerSpec) -> Tensor:
        """Pad with silence to a whole number of frames, which is a multiple of `spec.frame_multiple`."""
        return F.pad(x, (0, -x.shape[-1] % (spec.hop_length * spec.frame_multiple)))

    def example(self, spec: TokenizerSpec, batch: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return super().example(spec, batch, size, generator) - 0.5

    def load(self, source: Any, spec: TokenizerSpec, **options: Any) -> Signal:
        if spec.sample_rate is None:
            raise InputError(f"{spec.name} states no sample rate")
        return Signal(load_audio(source, spec.sample_rate, spec.channels, **options))

    def write(
        self,
        path: str | Path,
        signal: Any,
        spec: TokenizerSpec,
        *,
        frame_rate: float | None = None,
        pixel_aspect: float | None = None,
        overwrite: bool = False,
    ) -> None:
        if spec.sample_rate is None:
            raise InputError(f"{spec.name} states no sample rate")
        write_audio(path, signal, spec.sample_rate, overwrite=overwrite)

    def read_lossless(self, path: Path, like: Tensor, spec: TokenizerSpec) -> Tensor:
        return read_audio(path)[0]


def read_audio(path: MediaFile, start: float | None = None, duration: float | None = None) -> tuple[Tensor, int]:
    """Read an audio file, or the audio of a video file.

    Args:
        path: any file that libsndfile (WAV, FLAC, Ogg, ...) or else FFmpeg (MP3, M4A, AAC, video containers) reads.
        start: seconds to skip; None: none.
        duration: seconds to read, fewer if the file ends before; None: all.

    Returns:
        float32 `[channels, samples]`, and the sample rate in Hz. The samples are as stored: not clipped, and with the
        padding that some codecs add at the end. If rate or channels change within the file, the parts that follow are
        converted to those of the first one that is read.

    Raises:
        InputError: a start that is negative or after the end, or a duration that is not positive.
        MediaError: a file that is missing, damaged, cut short, or holds no audio. An Ogg file, or an MP3 or AAC stream
            that states no length, can be cut short without a sign of it.
    """
    if (start is not None and not 0 <= start < math.inf) or (duration is not None and not 0 < duration < math.inf):
        raise InputError(f"expected start >= 0 and duration > 0 seconds, got {start} and {duration}")
    pieces = list(_uniform(path, blocks_of(path, start or 0.0, duration)))
    if not pieces:
        raise InputError(f"{path}: expected a start before the end, got {start} seconds")
    return joined(iter(pieces)), pieces[0][1]


def stream_audio(path: MediaFile, seconds: float) -> Iterator[tuple[Tensor, int]]:
    """Yield a long file block by block, in constant memory.

    A part whose rate or channels differ from those of the first is read whole before it is converted.

    Args:
        path: as in `read_audio`.
        seconds: length of a block; the last one holds the rest.

    Yields:
        float32 `[channels, samples]`, and the sample rate in Hz. Joined, the blocks equal the result of `read_audio`.

    Raises:
        InputError: a length that is not positive.
        MediaError: as in `read_audio`, when the damage is reached.
    """
    return _regroup(_uniform(path, blocks_of(path)), check_seconds(seconds))


def write_audio(path: str | Path, audio: Tensor, sample_rate: int, overwrite: bool = False) -> None:
    """Write audio with 16 bits a sample, whole or not at all.

    Args:
        path: ends in `.wav` or `.flac`.
        audio: floating point `[channels, samples]` in [-1, 1], clipped.
        sample_rate: sample rate in Hz.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: another suffix, shape, dtype or rate, a sample that is not finite, or more channels than the
            format takes.
        MediaError: the file exists or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS_WRITTEN:
        raise InputError(f"{path}: expected a file ending in .wav or .flac, got {path.suffix!r}")
    _check_audio(audio)
    check_rate(sample_rate)
    if not audio.isfinite().all():
        raise InputError("expected audio in [-1, 1], got samples that are not finite")
    import soundfile

    samples = (audio.detach().cpu().double() * 32768).round().clamp(-32768, 32767).to(torch.int16)
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, samples.T.numpy(), sample_rate, "PCM_16", format=FORMATS_WRITTEN[path.suffix.lower()])
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: {len(audio)} channels at {sample_rate} Hz cannot be written: {error}") from error
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def to_channels(audio: Tensor, channels: int) -> Tensor:
    """Return audio `[..., channels, samples]` with another number of channels: their mean, or mono repeated.

    Raises:
        InputError: a number of channels for which neither is possible.
    """
    given = audio.shape[-2]
    if channels == given:
        return audio
    if channels == 1:
        return audio.mean(dim=-2, keepdim=True)
    if given == 1:
        return audio.repeat_interleave(channels, dim=-2)
    raise InputError(f"expected audio of 1 or {channels} channels, got {given}")


def load_audio(
    source: Any,
    to_rate: int,
    channels: int,
    *,
    sample_rate: int | None = None,
    resample: bool = True,
    start: float | None = None,
    seconds: float | None = None,
) -> Tensor:
    """Load the input of an audio model: float32 `[channels, samples]` at `to_rate`.

    Args:
        source: path, bytes or file object; or array or tensor, floating point `[channels, samples]` or `[samples]` in
            [-1, 1].
        to_rate: sample rate of the result in Hz.
        channels: number of channels of the result.
        sample_rate: sample rate of an array or tensor in Hz; a file states its own.
        resample: whether another rate is resampled; if not, it is an error.
        start: seconds that are left out before the part that is taken; None: none. The part is cut out before it is
            resampled.
        seconds: length that is taken; None: all.

    Raises:
        InputError: another type, shape or dtype, a missing or different `sample_rate`, a number of channels that the
            source cannot be converted to, or a start after the end.
        MediaError: as in `read_audio`.
    """
    first, seconds = check_start(start), None if seconds is None else check_seconds(seconds)
    if not isinstance(resample, bool):
        raise InputError(f"expected resample as True or False, got {reprlib.repr(resample)}")
    if sample_rate is not None:
        check_rate(sample_rate)
    file = as_file(source)
    if file is not None:
        blocks = blocks_of(file, first, seconds)
    elif sample_rate is None:
        raise InputError(f"expected sample_rate= with a {type(source).__name__}, got none")
    else:
        audio = _from_memory(source)[:, round(first * sample_rate) :]
        audio = audio if seconds is None else audio[:, : max(1, round(seconds * sample_rate))]
        blocks = iter([(audio, sample_rate)] if audio.shape[1] else [])
    parts = []
    for given_rate, part in alike(blocks):
        if sample_rate not in (None, given_rate):
            raise InputError(f"{file}: expected {sample_rate} Hz, got {given_rate} Hz")
        if given_rate != to_rate and not resample:
            raise InputError(f"expected {to_rate} Hz, got {given_rate} Hz; resample=True resamples")
        check_resampling(given_rate, to_rate)  # before a part is read that could not be used
        parts.append(_at_rate(to_channels(joined(part), channels), given_rate, to_rate))
    if not parts:
        raise InputError(f"{file or 'audio'}: expected a start before the end, got {start} seconds")
    audio = torch.cat(parts, dim=1)
    _warn_of_loudness(audio, file)
    return audio if seconds is None else audio[:, : max(1, round(seconds * to_rate))]


_at_rate = resample  # a name that is not shadowed in `load_audio`


# Reading


def _uniform(path: MediaFile, blocks: Blocks) -> Blocks:
    """Yield blocks in the rate and channels of the first; a later part that has others is read whole."""
    form = None
    for rate, part in alike(blocks):
        for block, _ in part:
            form = form or (rate, len(block))
            if (rate, len(block)) == form:
                yield block, rate
            else:
                yield _converted(path, joined(chain([(block, rate)], part)), rate, *form), form[0]


def _converted(path: MediaFile, audio: Tensor, from_rate: int, to_rate: int, channels: int) -> Tensor:
    """Return a part of a file at another rate and with other channels."""
    try:
        return _at_rate(to_channels(audio, channels), from_rate, to_rate)
    except InputError as error:
        raise MediaError(f"{path}: {error}") from error


def _regroup(blocks: Iterable[tuple[Tensor, int]], seconds: float) -> Iterator[tuple[Tensor, int]]:
    pending, length, rate = [], 0, 0
    for block, rate in blocks:
        size = max(1, round(seconds * rate))
        pending.append(block)
        length += block.shape[1]
        if length >= size:
            joined = torch.cat(pending, dim=1)
            length %= size
            whole = joined.shape[1] - length
            for part in joined[:, :whole].split(size, dim=1):
                yield part, rate
            pending = [joined[:, whole:]]
    if length:
        yield torch.cat(pending, dim=1), rate


# Checks


def _warn_of_loudness(audio: Tensor, file: MediaFile | None) -> None:
    peak = float(audio.abs().max())
    if LOUDEST < peak < math.inf:
        warnings.warn(
            f"{file or 'audio'}: peaks at {peak:.4g}, expected about [-1, 1]; 16-bit integers are divided by 32768",
            stacklevel=3,
        )


def _from_memory(source: np.ndarray | Tensor) -> Tensor:
    """Return audio in memory as float32 `[channels, samples]`."""
    if isinstance(source, np.ndarray):
        if source.dtype.kind != "f":
            raise InputError(f"expected audio of floats in [-1, 1], got {source.dtype}{_division(str(source.dtype))}")
        source = torch.from_numpy(source.astype(np.float32))
    if isinstance(source, Tensor) and not source.is_nested and source.ndim == 1:
        source = source[None]
    _check_audio(source)
    return source.float()


def _check_audio(audio: Tensor) -> None:
    if not isinstance(audio, Tensor):
        raise InputError(f"expected audio as a tensor [channels, samples], got {type(audio).__name__}")
    check_ordinary(audio, "audio")
    if audio.ndim != 2 or audio.numel() == 0:
        raise InputError(f"expected audio as [channels, samples], got {list(audio.shape)}")
    if len(audio) > MOST_CHANNELS:
        raise InputError(f"expected audio as [channels, samples], got {list(audio.shape)}; transpose it: audio.T")
    if audio.dtype not in FLOATING:
        raise InputError(f"expected audio of floats in [-1, 1], got {audio.dtype}{_division(str(audio.dtype))}")


def _division(dtype: str) -> str:
    """Return how integer samples become floats, to follow an error."""
    bits = re.fullmatch(r"(?:torch\.)?int(\d+)", dtype)
    return f"; divide by {2 ** (int(bits[1]) - 1)}" if bits else ""


MODALITY = AudioModality()
