"""Video: from files to windows of frames and back.

Video is `[3, T, H, W]`, uint8 as read or float in [0, 1].
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.modalities.base import FLOATING, Modality, Signal, check_ordinary, replicate
from zoo.modalities.files import MediaFile, as_file, check_seconds, check_start
from zoo.modalities.image import check_unit_range, fitted
from zoo.modalities.video_files import (
    DEFAULT_RATE,
    LEAST_RATE,
    MOST_ASPECT,
    MOST_RATE,
    Frame,
    frames_of,
    windows_of,
)

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec

WINDOW = 16  # frames that are read at once if nothing else is said


class VideoModality(Modality):
    """Video `[B, 3, T, H, W]` in [0, 1], encoded in windows of `chunk_frames`, or whole."""

    name = "video"
    title = "Video"
    noun = ("video", "videos")
    axes = ("frames", "height", "width")
    suffixes = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
    signal_suffix = ".mp4"
    lossless_suffix = ".mkv"
    options = ("resolution", "crop", "interpolation", "stretch", "target_size", "start", "seconds", "frames")
    has_unit_range = True
    network_range = (0.5, 0.5)
    raw_bits = 8
    unit = "/clip"
    reference = "17 frames of 256x256"
    reference_size = (17, 256, 256)
    amount_unit = "seconds"
    rate_unit = "kbit/s"
    speed_unit = "x real time"
    rate_scale = 1e-3
    quality = ("psnr", "ssim")
    validation_metrics = ("psnr", "ssim", "flicker")
    window_options = ("chunk_frames",)
    size_hint = "; resolution= resizes them to one"

    def code_length(self, spec: TokenizerSpec, length: int, window: int | None) -> int:
        window = length if spec.chunk_frames is None else window or spec.chunk_frames
        windows, rest = divmod(length, window)
        return windows * _grid_steps(spec, window) + (_grid_steps(spec, rest) if rest else 0)

    def window(self, spec: TokenizerSpec, options: dict[str, Any]) -> int | None:
        if spec.chunk_frames is None:
            return None
        frames = options.pop("chunk_frames", spec.chunk_frames)
        check_window(frames)
        return frames

    def windows(self, signal: Tensor, window: int | None) -> Sequence[Tensor]:
        return signal.split(window or signal.shape[2], dim=2)

    def amount(self, size: tuple[int, ...], sample_rate: float | None) -> float:
        if sample_rate is None:
            raise InputError("expected the frame rate of video, got none")
        return size[0] / sample_rate

    def pad(self, x: Tensor, spec: TokenizerSpec) -> Tensor:
        frames, *sides = (-length % step for length, step in zip(x.shape[2:], spec.downsample, strict=True))
        if spec.causal:  # the first frame has a grid step of its own
            frames = (1 - x.shape[2]) % spec.downsample[0]
        return replicate(x, [frames, *sides])

    def sizes(self, spec: TokenizerSpec) -> list[tuple[int, ...]]:
        steps, height, width = spec.downsample
        if spec.resolution is not None and not spec.variable_size:
            return [(steps, *spec.resolution), (2 * steps + 1, *spec.resolution)]
        longest = spec.chunk_frames or 2 * steps
        even, odd = (1 + steps, 3) if spec.causal else (2 * steps, steps + 1)  # of two positions in time
        return [
            (min(even, longest), 2 * height, 2 * width),
            (min(odd, longest - 1), height + height // 2 + 1, width + 1),
        ]

    def load(self, source: Any, spec: TokenizerSpec, **options: Any) -> Signal:
        parts = list(self._windows(source, spec, spec.chunk_frames or WINDOW, options))
        return parts[0]._replace(values=torch.cat([part.values for part in parts], dim=1))

    def stream(self, source: Any, spec: TokenizerSpec, **options: Any) -> Iterator[Signal]:
        """Yield windows of `spec.chunk_frames` frames, in constant memory; the whole video if there are no windows.

        `start` leaves out the seconds before it, whose frames are decoded all the same; `seconds` and `frames` limit
        the length.
        """
        if spec.chunk_frames is None:
            yield self.load(source, spec, **options)
        else:
            yield from self._windows(source, spec, spec.chunk_frames, options)

    def _windows(self, source: Any, spec: TokenizerSpec, length: int, options: dict[str, Any]) -> Iterator[Signal]:
        seconds, most, start = options.get("seconds"), options.get("frames"), check_start(options.get("start"))
        seconds = None if seconds is None else check_seconds(seconds)
        file = as_file(source)
        frames = _frames_in_memory(source) if file is None else frames_of(file, start)
        first = next(frames, None)
        if first is None and start:
            raise InputError(f"{file}: expected a start before the end, got {start:g} seconds")
        if first is None:
            raise MediaError(f"{file}: holds no frame")
        if first.rate is None and (start or seconds is not None):
            raise InputError("expected start= and seconds= with a file that states its frame rate, got frames alone")
        if first.rate is not None and seconds is not None:
            most = max(1, round(seconds * first.rate))
        taken = islice(chain([first], frames), most)
        resized = (fitted(frame.pixels, spec, options) for frame in taken)
        for window in windows_of(resized, length, file):
            values = window if window.is_floating_point() else window.float().div_(255)
            yield Signal(values, first.rate, first.pixel_aspect)

    def write(
        self,
        path: str | Path,
        signal: Tensor | Iterable[Tensor],
        spec: TokenizerSpec,
        *,
        frame_rate: float | None = None,
        pixel_aspect: float | None = None,
        overwrite: bool = False,
    ) -> None:
        if frame_rate is None:
            raise InputError(f"{path}: expected the frame rate of the video, got none")
        write_video(path, signal, frame_rate, pixel_aspect=pixel_aspect, overwrite=overwrite)

    def write_lossless(self, path: Path, signal: Signal, spec: TokenizerSpec) -> None:
        if signal.frame_rate is None:
            raise InputError(f"{path}: expected the frame rate of the video, got none")
        write_lossless_video(path, signal.values, signal.frame_rate)

    def read_lossless(self, path: Path, like: Tensor, spec: TokenizerSpec) -> Tensor:
        return load_video(path)


def check_window(frames: Any) -> None:
    """Raise InputError unless `chunk_frames` is an integer of at least 1."""
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise InputError(f"expected chunk_frames as an integer of at least 1, got {reprlib.repr(frames)}")


def _grid_steps(spec: TokenizerSpec, frames: int) -> int:
    """Return the grid positions of one window along time."""
    step = spec.downsample[0]
    return 1 + math.ceil((frames - 1) / step) if spec.causal else math.ceil(frames / step)


def _frames_in_memory(source: Any) -> Iterator[Frame]:
    """Return the frames of a video in memory, after its checks."""
    if isinstance(source, np.ndarray):
        if source.ndim != 4 or source.shape[3] != 3:
            raise InputError(f"expected a video array [frames, height, width, 3], got {list(source.shape)}")
        if source.dtype != np.uint8 and source.dtype not in (np.float16, np.float32, np.float64):
            raise InputError(f"expected a video array of uint8, or floats in [0, 1], got {source.dtype}")
        source = torch.from_numpy(np.array(source)).permute(3, 0, 1, 2)
    if not isinstance(source, Tensor):
        kinds = "path, bytes, array [frames, height, width, 3] or tensor [3, frames, height, width]"
        raise InputError(f"expected a video as {kinds}, got {type(source).__name__}")
    _check_video(source)
    if source.is_floating_point():
        check_unit_range(source, "a float video")
    return (Frame(pixels, None, None) for pixels in source.unbind(1))


def read_video(path: MediaFile, frames: int) -> Iterator[tuple[Tensor, float]]:
    """Yield a video file window by window, in constant memory.

    Args:
        path: any file that FFmpeg reads.
        frames: length of a window; the last one holds the rest.

    Yields:
        uint8 `[3, T, H, W]`, rotated as the file says, and the frames per second: the mean rate of the timestamps,
        or 25 if the file has none.

    Raises:
        InputError: a length below one frame.
        MediaError: a file that is missing, damaged or holds no video, frames that change in size, or windows of more
            than 2**29 pixels, when they are reached.
    """
    if frames < 1:
        raise InputError(f"expected windows of at least 1 frame, got {frames}")
    return _windows_with_rate(path, frames)


def load_video(path: MediaFile) -> Tensor:
    """Read a whole video file as float32 `[3, T, H, W]` in [0, 1]; errors are those of `read_video`."""
    windows = [window for window, _ in read_video(path, WINDOW)]
    if not windows:
        raise MediaError(f"{path}: holds no frame")
    return torch.cat(windows, dim=1).float().div_(255)


def write_video(
    path: str | Path,
    video: Tensor | Iterable[Tensor],
    fps: float,
    overwrite: bool = False,
    *,
    pixel_aspect: float | None = None,
) -> None:
    """Write H.264 at a visually nearly lossless quality (CRF 18), whole or not at all.

    Args:
        path: ends in `.mp4`, `.mkv` or `.mov`.
        video: float `[3, T, H, W]` in [0, 1], clamped; or uint8; or windows of such video, which are written as they
            come, in constant memory.
        fps: frames per second, from 0.01 to 1000.
        overwrite: whether an existing file is replaced.
        pixel_aspect: width of the pixels divided by their height, from 0.01 to 100; None: they are square.

    Raises:
        InputError: another suffix, shape or dtype, windows that differ in height or width, a value that is not
            finite, or an `fps` or a `pixel_aspect` out of range.
        MediaError: the file exists or cannot be written.
    """
    import av

    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
        raise InputError(f"{path}: expected a file ending in .mp4, .mkv or .mov, got {path.suffix!r}")
    if not LEAST_RATE <= fps <= MOST_RATE:
        raise InputError(f"expected fps from {LEAST_RATE:g} to {MOST_RATE:g}, got {fps}")
    if pixel_aspect is not None and not 1 / MOST_ASPECT <= pixel_aspect <= MOST_ASPECT:
        raise InputError(f"expected a pixel aspect from {1 / MOST_ASPECT:g} to {MOST_ASPECT:g}, got {pixel_aspect}")
    windows = map(_as_bytes, [video] if isinstance(video, Tensor) else video)
    first = next(windows, None)
    if first is None:
        raise InputError("expected video of at least one frame, got no window")
    height, width = first.shape[2:]
    with atomic_path(path, overwrite) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.height, stream.width = height, width
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(1000)
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"  # halving colour needs even sides
        for window in chain([first], windows):
            if window.shape[2:] != first.shape[2:]:
                raise InputError(f"expected windows of {height}x{width} pixels, got {list(window.shape)}")
            for image in window.permute(1, 2, 3, 0).cpu().numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode())


def write_lossless_video(path: Path, video: Tensor, frame_rate: float) -> None:
    """Write float `[3, T, H, W]` in [0, 1] as FFV1 with 8 bits of red, green and blue; an existing file is replaced."""
    import av

    with atomic_path(path, overwrite=True) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(frame_rate).limit_denominator(1001))
        stream.height, stream.width = video.shape[2:]
        stream.pix_fmt = "bgr0"
        for image in _as_bytes(video).permute(1, 2, 3, 0).cpu().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode())


def _as_bytes(video: Tensor) -> Tensor:
    _check_video(video)
    return (video.float().clamp(0, 1) * 255).round().to(torch.uint8) if video.is_floating_point() else video


def _check_video(video: Tensor) -> None:
    check_ordinary(video, "video")
    if video.ndim != 4 or video.shape[0] != 3 or video.numel() == 0:
        raise InputError(f"expected video as [3, frames, height, width], got {list(video.shape)}")
    if video.dtype != torch.uint8 and video.dtype not in FLOATING:
        raise InputError(f"expected video of uint8, or floats in [0, 1], got {video.dtype}")
    if video.is_floating_point() and not video.isfinite().all():
        raise InputError("expected video in [0, 1], got values that are not finite")


def _windows_with_rate(path: MediaFile, frames: int) -> Iterator[tuple[Tensor, float]]:
    read = frames_of(path)
    for first in read:
        for window in windows_of((frame.pixels for frame in chain([first], read)), frames, path):
            yield window, first.rate or DEFAULT_RATE


MODALITY = VideoModality()
