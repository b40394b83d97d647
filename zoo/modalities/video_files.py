"""Reading of video files as frames, with the frame rate and the pixel aspect of the whole video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import MediaError, ZooError
from zoo.modalities.files import MediaFile, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEFAULT_RATE = 25.0  # frames per second of a file without timestamps, as FFmpeg has it
LEAST_RATE, MOST_RATE = 0.01, 1000.0
MOST_ASPECT = 100.0
MOST_FRAME_PIXELS = 2**26  # twice 8K
MOST_WINDOW_PIXELS = 2**29  # 16 frames of 8K


class Frame(NamedTuple):
    """One frame of a video.

    pixels: `[3, H, W]`, uint8 from a file. rate: frames per second of the video; None if not known.
    pixel_aspect: as in `Signal`.
    """

    pixels: Tensor
    rate: float | None
    pixel_aspect: float | None


def frames_of(path: MediaFile, start: float = 0.0) -> Iterator[Frame]:
    """Decode the best video stream of a file, as FFmpeg chooses it, frame by frame.

    start: seconds whose frames are left out, counted at the mean rate.

    Raises:
        MediaError: as in `zoo.media.read_video`, when the damage is reached.
    """
    try:
        yield from _decode(path, start)
    except ZooError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be read as video: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise MediaError(f"{path}: cannot be read as video: {error}") from error


def windows_of(frames: Iterable[Tensor], length: int, path: MediaFile | None) -> Iterator[Tensor]:
    """Stack frames `[3, H, W]` to windows `[3, T, H, W]` of `length`, of which the last may be shorter.

    Raises:
        MediaError: a window of more pixels than `MOST_WINDOW_PIXELS`.
    """
    frames = iter(frames)
    for first in frames:
        height, width = first.shape[1:]
        window = [first, *islice(frames, min(length, MOST_WINDOW_PIXELS // (height * width) + 1) - 1)]
        if len(window) * height * width > MOST_WINDOW_PIXELS:
            raise MediaError(
                f"{path or 'video'}: windows of {length} frames of {height}x{width} pixels take more than "
                f"{MOST_WINDOW_PIXELS} pixels; resolution= makes them smaller"
            )
        yield torch.stack(window, dim=1)


def _decode(path: MediaFile, start: float) -> Iterator[Frame]:
    import av

    with av.open(opened(path), mode="r", metadata_errors="ignore") as container:
        rate = _rate(_best(path, container), container)
    with av.open(opened(path), mode="r", metadata_errors="ignore") as container:
        stream = _best(path, container)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MOST_FRAME_PIXELS)}  # where the size grows on the way
        aspect, size, count = float(stream.sample_aspect_ratio or 1), None, 0
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise MediaError(f"{path}: holds a damaged frame")
            if size not in (None, (frame.width, frame.height)):
                before, now = (f"{width}x{height}" for width, height in (size, (frame.width, frame.height)))
                raise MediaError(f"{path}: its frames change from {before} to {now} pixels after {count} frames")
            size, count = (frame.width, frame.height), count + 1
            if count <= round(start * rate):
                continue
            turns = frame.rotation // 90
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
            yield Frame(
                torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
                rate,
                _pixel_aspect(1 / aspect if turns % 2 and aspect else aspect),
            )


def _best(path: MediaFile, container: InputContainer) -> VideoStream:
    from av.video.stream import VideoStream

    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise MediaError(f"{path}: holds no video")
    width, height = stream.width, stream.height
    if width * height > MOST_FRAME_PIXELS:
        raise MediaError(f"{path}: states frames of {width}x{height} pixels, expected at most {MOST_FRAME_PIXELS}")
    return stream


def _pixel_aspect(ratio: float) -> float | None:
    return ratio if ratio != 1 and 1 / MOST_ASPECT <= ratio <= MOST_ASPECT else None


def _rate(stream: VideoStream, container: InputContainer) -> float:
    """Mean frames per second, of the timestamps where the container does not count its frames."""
    stated = _usable(float(stream.average_rate or 0))
    if stated and stream.frames and stream.duration:
        return stated
    count, first, before, last = 0, math.inf, -math.inf, -math.inf
    hides_frames = stream.codec_context.name.startswith("vp8")
    for packet in container.demux(stream):
        if packet.pts is None or packet.is_discard or (hides_frames and not memoryview(packet)[0] & 16):
            continue
        count, first = count + 1, min(first, packet.pts)
        before, last = sorted((before, last, packet.pts))[1:]
    if count < 2 or last <= first or stream.time_base is None:
        return stated or DEFAULT_RATE
    seconds = (last - first + (last - before)) * float(stream.time_base)  # the last frame is as long as the one before
    if stated and abs(count / stated - seconds) < 1 / stated:
        return stated  # timestamps are rounded
    return _usable(count / seconds) or stated or DEFAULT_RATE


def _usable(rate: float) -> float | None:
    return rate if LEAST_RATE <= rate <= MOST_RATE else None
