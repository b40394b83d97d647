"""Audio: from files and arrays to tensors and back, sample rates and channels.

Audio is float32 `[channels, samples]`, nominally in [-1, 1].
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.modalities.base import Modality, Signal
from zoo.modalities.files import MediaBytes, MediaFile, as_file, opened

if TYPE_CHECKING:
    import soundfile

    from zoo.spec import TokenizerSpec

FORMATS_WRITTEN = {".wav": "WAV", ".flac": "FLAC"}
MOST_CHANNELS = 64
PREROLL = 2**15  # samples: a Vorbis decoder can be off in the first blocks after a jump


class AudioModality(Modality):
    """Audio `[B, channels, samples]`, nominally in [-1, 1], at `spec.sample_rate`."""

    name = "audio"
    title = "Audio"
    noun = ("recording", "recordings")
    axes = ("samples",)
    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff")
    signal_suffix = ".wav"
    lossless_suffix = ".flac"
    options = ("sample_rate", "resample", "seconds")
    networks_pad = True
    network_range = (0.0, 1.0)
    raw_bits = 16
    unit = "/s"
    reference = "second"
    reference_size = None
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

    def pad(self, x: Tensor, spec: TokenizerSpec) -> Tensor:
        """Pad with silence to a whole number of frames."""
        return F.pad(x, (0, -x.shape[-1] % spec.hop_length))

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
        padding that some codecs add at the end.

    Raises:
        InputError: a start that is negative or after the end, or a duration that is not positive.
        MediaError: a file that is missing, damaged, cut short, or holds no audio. An Ogg file, or an MP3 or AAC stream
            that states no length, can be cut short without a sign of it.
    """
    if (start is not None and not start >= 0) or (duration is not None and not duration > 0):
        raise InputError(f"expected start >= 0 and duration > 0 seconds, got {start} and {duration}")
    pieces, sample_rate = [], 0
    for block, sample_rate in _decode(path, start or 0.0, duration):  # noqa: B007 - read after the loop
        pieces.append(block)
    if not pieces:
        raise InputError(f"{path}: expected a start before the end, got {start} seconds")
    return torch.cat(pieces, dim=1), sample_rate


def stream_audio(path: MediaFile, seconds: float) -> Iterator[tuple[Tensor, int]]:
    """Yield a long file block by block, in constant memory.

    Args:
        path: as in `read_audio`.
        seconds: length of a block; the last one holds the rest.

    Yields:
        float32 `[channels, samples]`, and the sample rate in Hz. Joined, the blocks equal the result of `read_audio`.

    Raises:
        InputError: a length that is not positive.
        MediaError: as in `read_audio`, when the damage is reached.
    """
    if not seconds > 0:
        raise InputError(f"expected blocks of more than 0 seconds, got {seconds}")
    return _regroup(_decode(path, 0.0, None), seconds)


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
    _check_rate(sample_rate)
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


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Return audio at another sample rate, by torchaudio's Resample: a Hann-windowed sinc (width 6, rolloff 0.99).

    Args:
        audio: floating point `[..., samples]`.
        from_rate, to_rate: sample rates in Hz.

    Returns:
        `[..., ceil(samples * to_rate / from_rate)]`; `audio` itself if the rates are the same.

    Raises:
        InputError: a rate that is not a positive integer.
    """
    _check_rate(from_rate)
    _check_rate(to_rate)
    if from_rate == to_rate:
        return audio
    import torchaudio

    return torchaudio.transforms.Resample(from_rate, to_rate).to(audio)(audio)


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
        seconds: length that is taken from the start; None: all.

    Raises:
        InputError: another type, shape or dtype, a missing or different `sample_rate`, or a number of channels that
            the source cannot be converted to.
        MediaError: as in `read_audio`.
    """
    if seconds is not None and not seconds > 0:
        raise InputError(f"expected more than 0 seconds, got {seconds}")
    file = as_file(source)
    if file is not None:
        audio, given_rate = read_audio(file, duration=seconds)
        if sample_rate not in (None, given_rate):
            raise InputError(f"{file}: expected {sample_rate} Hz, got {given_rate} Hz")
    elif sample_rate is None:
        raise InputError(f"expected sample_rate= with a {type(source).__name__}, got none")
    else:
        audio, given_rate = _from_memory(source), sample_rate
        audio = audio if seconds is None else audio[:, : max(1, round(seconds * given_rate))]
    if given_rate != to_rate and not resample:
        raise InputError(f"expected {to_rate} Hz, got {given_rate} Hz; resample=True resamples")
    audio = _at_rate(to_channels(audio, channels), given_rate, to_rate)
    return audio if seconds is None else audio[:, : max(1, round(seconds * to_rate))]


_at_rate = resample  # a name that is not shadowed in `load_audio`


# Reading


def _decode(path: MediaFile, start: float, duration: float | None) -> Iterator[tuple[Tensor, int]]:
    """Yield blocks `[channels, samples]` of any length with their rate."""
    import soundfile

    try:
        file = soundfile.SoundFile(opened(path))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a suffix that stands for samples without a header
        return _decode_with_av(path, start, duration)
    if file.subtype.startswith("MPEG"):  # soundfile seeks after each block, and libsndfile drops MP3's bit reservoir
        file.close()
        return _decode_with_av(path, start, duration, stated=file.frames if _has_mp3_length(path) else None)
    if not 0 < file.frames < 2**62:  # written to a pipe, without a length
        file.close()
        return _decode_with_av(path, start, duration)
    return _decode_with_soundfile(path, file, start, duration)


def _has_mp3_length(path: MediaFile) -> bool:
    """Return whether the first frame states the length; otherwise libsndfile estimates it from the bit rate."""
    with io.BytesIO(path.content) if isinstance(path, MediaBytes) else open(path, "rb") as file:
        tag = file.read(10)
        if tag.startswith(b"ID3"):  # its size: four bytes of seven bits
            size = sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        first_frame = file.read(64)
    return b"Xing" in first_frame or b"Info" in first_frame


def _decode_with_soundfile(
    path: MediaFile, file: soundfile.SoundFile, start: float, duration: float | None
) -> Iterator[tuple[Tensor, int]]:
    import soundfile

    rate = file.samplerate
    with file:
        # The header states more bytes than the file has; a number of about 2 ** 31 or more stands for no number.
        for chunk, stated, held in re.findall(r"^(data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.M):
            if int(held) < int(stated) < 0x7FFF0000:
                raise MediaError(f"{path}: cut short: its {chunk} chunk has {held} of {stated} bytes")
        first = round(start * rate)
        if first >= file.frames:
            return
        remaining = file.frames - first
        if duration is not None:
            remaining = min(remaining, max(1, round(duration * rate)))
        try:
            preroll = min(first, PREROLL)
            file.seek(first - preroll)
            file.read(preroll)
            while remaining:
                block = file.read(min(remaining, 2**18), dtype="float32", always_2d=True)
                if len(block) == 0:
                    raise MediaError(f"{path}: cut short: {remaining} of {file.frames} samples are missing")
                remaining -= len(block)
                yield torch.from_numpy(np.ascontiguousarray(block.T)), rate
        except soundfile.LibsndfileError as error:
            raise MediaError(f"{path}: damaged: {error.error_string}") from error


def _decode_with_av(
    path: MediaFile, start: float, duration: float | None, stated: int | None = None
) -> Iterator[tuple[Tensor, int]]:
    import av

    position = 0
    try:
        with av.open(opened(path), mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(f"{path}: holds no sound")
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                if frame.is_corrupt:
                    raise MediaError(f"{path}: damaged at {position / frame.sample_rate:.2f} seconds")
                rate = frame.sample_rate
                first = round(start * rate)
                end = None if duration is None else first + max(1, round(duration * rate))
                for part in to_float.resample(frame):
                    block = torch.from_numpy(part.to_ndarray())
                    kept = block[:, max(0, first - position) : None if end is None else max(0, end - position)]
                    position += block.shape[1]
                    if kept.shape[1]:
                        yield kept, rate
                if end is not None and position >= end:
                    return
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be read as sound: {error.strerror}") from error
    if position == 0:
        raise MediaError(f"{path}: holds no sound")
    if stated is not None and position < stated - 1152:  # a frame: some encoders count one too many
        raise MediaError(f"{path}: cut short: holds {position} of {stated} samples")


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


def _from_memory(source: np.ndarray | Tensor) -> Tensor:
    """Return audio in memory as float32 `[channels, samples]`."""
    if isinstance(source, np.ndarray):
        if source.dtype.kind != "f":
            raise InputError(f"expected audio of floats in [-1, 1], got {source.dtype}")
        source = torch.from_numpy(source.astype(np.float32))
    if isinstance(source, Tensor) and source.ndim == 1:
        source = source[None]
    _check_audio(source)
    return source.float()


def _check_audio(audio: Tensor) -> None:
    if not isinstance(audio, Tensor):
        raise InputError(f"expected audio as a tensor [channels, samples], got {type(audio).__name__}")
    if audio.ndim != 2 or audio.numel() == 0:
        raise InputError(f"expected audio as [channels, samples], got {list(audio.shape)}")
    if len(audio) > MOST_CHANNELS:
        raise InputError(f"expected audio as [channels, samples], got {list(audio.shape)}; transpose it: audio.T")
    if not audio.is_floating_point():
        raise InputError(f"expected audio of floats in [-1, 1], got {audio.dtype}")


def _check_rate(sample_rate: int) -> None:
    if not isinstance(sample_rate, int) or sample_rate < 1:
        raise InputError(f"expected a sample rate as a positive integer in Hz, got {sample_rate!r}")


MODALITY = AudioModality()
