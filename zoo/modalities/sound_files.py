"""Reading of sound files as blocks of samples, each with its rate; rate and channels may change within a file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zoo.errors import MediaError, ZooError
from zoo.modalities.files import MediaBytes, MediaFile, opened

if TYPE_CHECKING:
    import soundfile
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MOST_CHANNELS = 64
BLOCK = 2**18  # samples that are read at once
PREROLL = 2**15  # samples: a Vorbis decoder can be off in the first blocks after a jump

Blocks = Iterator[tuple[Tensor, int]]


def blocks_of(path: MediaFile, start: float = 0.0, duration: float | None = None) -> Blocks:
    """Decode a file, or the part of it from `start` to `start + duration` in seconds.

    Yields:
        float32 `[channels, samples]` of any length, and the rate in Hz; both may change within a file.

    Raises:
        MediaError: as in `zoo.media.read_audio`, when the damage is reached.
    """
    try:
        yield from _decode(path, start, duration)
    except ZooError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be read as sound: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise MediaError(f"{path}: cannot be read as sound: {error}") from error


def alike(blocks: Blocks) -> Iterator[tuple[int, Blocks]]:
    """Group neighbouring blocks of the same rate and number of channels; with each group its rate."""
    for (_, rate), group in groupby(blocks, key=lambda block: (len(block[0]), block[1])):
        yield rate, group


def joined(blocks: Blocks) -> Tensor:
    """Samples of blocks of one form."""
    return torch.cat([block for block, _ in blocks], dim=1)


def _decode(path: MediaFile, start: float, duration: float | None) -> Blocks:
    import soundfile

    try:
        file = soundfile.SoundFile(opened(path))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a suffix that stands for samples without a header
        return _cut(_decode_with_av(path), start, duration)
    if file.subtype.startswith("MPEG"):  # soundfile seeks after each block, and libsndfile drops MP3's bit reservoir
        file.close()
        stated = file.frames if _has_mp3_length(path) else None
        return _cut(_decode_with_av(path, stated), start, duration)
    links = _ogg_links(path) if file.format == "OGG" else []
    if len(links) > 1:  # of which libsndfile reads the first
        file.close()
        return _cut(_decode_links(path, links), start, duration)
    if not 0 < file.frames < 2**62:  # written to a pipe, without a length
        file.close()
        return _cut(_decode_with_av(path), start, duration)
    return _decode_with_soundfile(path, file, start, duration)


def _cut(blocks: Blocks, start: float, duration: float | None) -> Blocks:
    """Keep the part from `start` to `start + duration`, counted in seconds across changes of the rate."""
    elapsed, position, current = 0.0, 0, 0  # seconds of the parts before, samples of this part, its rate
    for block, rate in blocks:
        if rate != current:
            elapsed += position / current if current else 0.0
            position, current = 0, rate
        first = round((start - elapsed) * rate)
        end = None if duration is None else first + max(1, round(duration * rate))
        kept = block[:, max(0, first - position) : None if end is None else max(0, end - position)]
        position += block.shape[1]
        if kept.shape[1]:
            yield kept, rate
        if end is not None and position >= end:
            return


def _has_mp3_length(path: MediaFile) -> bool:
    """Return whether the first frame states the length; otherwise libsndfile estimates it from the bit rate."""
    with _binary(path) as file:
        tag = file.read(10)
        if tag.startswith(b"ID3"):  # its size: four bytes of seven bits
            size = sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        first_frame = file.read(64)
    return b"Xing" in first_frame or b"Info" in first_frame


def _ogg_links(path: MediaFile) -> list[tuple[int, int]]:
    """Return the start and end in bytes of each stream of an Ogg file, in which several may follow each other."""
    starts, position, opens_before = [], 0, False
    with _binary(path) as file:
        while len(header := file.read(27)) == 27 and header.startswith(b"OggS"):
            opens = bool(header[5] & 2)  # the first page of a stream
            if opens and not opens_before:
                starts.append(position)
            opens_before = opens
            position += 27 + header[26] + sum(file.read(header[26]))  # the lengths of the page's segments
            file.seek(position)
    return list(zip(starts, [*starts[1:], position], strict=True))


def _binary(path: MediaFile) -> io.BufferedIOBase:
    return io.BytesIO(path.content) if isinstance(path, MediaBytes) else Path(path).open("rb")


def _decode_links(path: MediaFile, links: list[tuple[int, int]]) -> Blocks:
    for start, end in links:
        with _binary(path) as file:
            file.seek(start)
            link = MediaBytes(file.read(end - start), str(path))
        yield from _decode(link, 0.0, None)


def _decode_with_soundfile(path: MediaFile, file: soundfile.SoundFile, start: float, duration: float | None) -> Blocks:
    import soundfile

    rate = file.samplerate
    with file:
        _check_channels(path, file.channels)
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
            dropped = first  # some codecs, as GSM 6.10, cannot jump
            if file.seekable():
                dropped = min(first, PREROLL)
                file.seek(first - dropped)
            while dropped:
                dropped -= len(file.read(min(dropped, BLOCK))) or dropped
            while remaining:
                block = file.read(min(remaining, BLOCK), dtype="float32", always_2d=True)
                if len(block) == 0:
                    raise MediaError(f"{path}: cut short: {remaining} of {file.frames} samples are missing")
                remaining -= len(block)
                yield torch.from_numpy(np.ascontiguousarray(block.T)), rate
        except soundfile.LibsndfileError as error:
            raise MediaError(f"{path}: damaged: {error.error_string}") from error


def _decode_with_av(path: MediaFile, stated: int | None = None) -> Blocks:
    import av
    from av.audio.stream import AudioStream

    samples, seconds = 0, 0.0
    with av.open(opened(path), mode="r", metadata_errors="ignore") as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise MediaError(f"{path}: holds no sound")
        form, to_float = None, av.AudioResampler(format="fltp")
        for frame, rate in _frames(container, stream):
            if frame.is_corrupt:
                raise MediaError(f"{path}: damaged at {seconds:.2f} seconds")
            if rate < 1:
                raise MediaError(f"{path}: states a sample rate of {rate} Hz")
            if form != (form := (frame.format.name, frame.layout.name, rate)):
                to_float = av.AudioResampler(format="fltp")  # accepts only one format of frames
            for part in to_float.resample(frame):
                block = torch.from_numpy(part.to_ndarray())
                _check_channels(path, len(block))
                samples += block.shape[1]
                seconds += block.shape[1] / rate
                yield block, rate
    if samples == 0:
        raise MediaError(f"{path}: holds no sound")
    if stated is not None and samples < stated - 1152:  # a frame: some encoders count one too many
        raise MediaError(f"{path}: cut short: holds {samples} of {stated} samples")


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[tuple[AudioFrame, int]]:
    """Decoded frames with their rates; FFmpeg's MP3 decoder states that of the frame before."""
    is_mp3 = stream.codec_context.name.startswith("mp3")
    for packet in container.demux(stream):
        header = bytes(memoryview(packet)[:4]) if is_mp3 else b""
        rate = _mp3_rate(header) if len(header) == 4 else None
        for frame in packet.decode():
            yield frame, rate or frame.sample_rate


def _mp3_rate(header: bytes) -> int | None:
    """The rate in Hz that the first bytes of an MP3 frame state."""
    version, rate = header[1] >> 3 & 3, header[2] >> 2 & 3
    if header[0] != 255 or version == 1 or rate == 3:
        return None
    return (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]


def _check_channels(path: MediaFile, channels: int) -> None:
    if not 1 <= channels <= MOST_CHANNELS:
        raise MediaError(f"{path}: has {channels} channels, expected at most {MOST_CHANNELS}")
