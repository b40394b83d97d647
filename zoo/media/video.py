"""Video: files to windows of frames and back.

Video is `[3, T, H, W]`, uint8 as read or float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.media.memory import MediaFile, opened


def read_video(path: MediaFile, frames: int) -> Iterator[tuple[Tensor, float]]:
    """A video file window by window, in constant memory.

    Args:
        path: whatever FFmpeg reads.
        frames: length of a window; the last one is what remains.

    Yields:
        uint8 `[3, T, H, W]`, turned as the file says, and the frames per second (the mean, where they vary).

    Raises:
        InputError: windows of less than a frame.
        MediaError: a file that is missing, damaged or holds no video, when the damage is reached.
    """
    if frames < 1:
        raise InputError(f"expected windows of at least 1 frame, got {frames}")
    return _windows(path, frames)


def load_video(path: str | Path) -> Tensor:
    """A whole video file as float32 `[3, T, H, W]` in [0, 1]; MediaError as `read_video`, which takes less memory."""
    windows = [window for window, _ in read_video(path, 64)]
    if not windows:
        raise MediaError(f"{path}: holds no frame")
    return torch.cat(windows, dim=1).float() / 255


def write_video(path: str | Path, video: Tensor | Iterable[Tensor], fps: float, overwrite: bool = False) -> None:
    """Write H.264 at a quality close to the eye's limit (CRF 18), whole or not at all.

    Args:
        path: ends in `.mp4`, `.mkv` or `.mov`.
        video: float `[3, T, H, W]` in [0, 1], what is beyond clamped; or uint8; or windows of such video, which are
            written as they come, in constant memory.
        fps: frames per second.
        overwrite: whether a file that is there already is replaced.

    Raises:
        InputError: another suffix, shape or dtype, windows that differ in height or width, a value that is not
            finite, or no positive `fps`.
        MediaError: the file exists or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
        raise InputError(f"{path}: expected a file ending in .mp4, .mkv or .mov, got {path.suffix!r}")
    if not fps > 0:
        raise InputError(f"expected fps > 0, got {fps}")
    windows = map(_as_bytes, [video] if isinstance(video, Tensor) else video)
    first = next(windows, None)
    if first is None:
        raise InputError("expected video of at least one frame, got no window")
    height, width = first.shape[2:]
    with atomic_path(path, overwrite) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"  # halved colour needs even sides
        for window in chain([first], windows):
            if window.shape[2:] != first.shape[2:]:
                raise InputError(f"expected windows of {height}x{width} pixels, got {list(window.shape)}")
            for picture in window.permute(1, 2, 3, 0).cpu().numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode())


def _as_bytes(video: Tensor) -> Tensor:
    if video.ndim != 4 or video.shape[0] != 3 or video.numel() == 0:
        raise InputError(f"expected video as [3, frames, height, width], got {list(video.shape)}")
    if video.is_floating_point():
        if not video.isfinite().all():
            raise InputError("expected video in [0, 1], got values that are not finite")
        video = (video.float().clamp(0, 1) * 255).round().to(torch.uint8)
    if video.dtype != torch.uint8:
        raise InputError(f"expected video of uint8, or floats in [0, 1], got {video.dtype}")
    return video


def _windows(path: MediaFile, frames: int) -> Iterator[tuple[Tensor, float]]:
    window = []
    try:
        with av.open(opened(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise MediaError(f"{path}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(f"{path}: holds a damaged frame")
                window.append(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                if len(window) == frames:
                    yield _stack(window), float(stream.average_rate)
                    window = []
            if window:
                yield _stack(window), float(stream.average_rate)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be read as video: {error.strerror}") from error


def _stack(window: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(window)).permute(3, 0, 1, 2).contiguous()
