"""Video: figures of images averaged over frames, the distance of two sets of clips, and flicker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics import image, networks
from zoo.metrics.base import Metric, plain_metric

if TYPE_CHECKING:
    from zoo.metrics.sets import FrechetDistance

FRAMES_AT_ONCE = 16
FVD_FRAMES = 16


def frame_psnr(reconstruction: Tensor, original: Tensor, **settings: Any) -> Tensor:
    """Mean of `zoo.metrics.image.psnr` over the frames of a clip.

    Args:
        reconstruction, original: floating point `[B, 3, T, H, W]` in [0, 1].
        settings: those of the image metric.

    Returns:
        `[B]` in dB, higher is better; infinite where a frame is equal.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    return _mean_of_frames(partial(image.psnr, **settings), reconstruction, original)


def frame_ssim(reconstruction: Tensor, original: Tensor, **settings: Any) -> Tensor:
    """Mean of `zoo.metrics.image.ssim` over the frames of a clip, `[B]`; arguments and errors as in `frame_psnr`."""
    return _mean_of_frames(partial(image.ssim, **settings), reconstruction, original)


def frame_lpips(reconstruction: Tensor, original: Tensor, **settings: Any) -> Tensor:
    """Mean of `zoo.metrics.image.lpips` over the frames of a clip, `[B]`; arguments and errors as in `frame_psnr`.

    Raises:
        WeightsUnavailableError: the backbone's weights are not on this machine; the message names the file and its
            source.
    """
    return _mean_of_frames(partial(image.lpips, **settings), reconstruction, original)


def flicker(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Temporal difference error: how far the changes from frame to frame are from those of the original.

    Mean over pixels, channels and pairs of successive frames of `|(y[t+1] - y[t]) - (x[t+1] - x[t])|`, with `y` the
    reconstruction and `x` the original. An error that stays the same over time does not count; one that comes and
    goes does.

    Args:
        reconstruction, original: floating point `[B, 3, T, H, W]` in [0, 1].

    Returns:
        `[B]` in units of the pixels' range [0, 1], from 0 to 2, lower is better. NaN for a single frame.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    _check_pair(reconstruction, original)
    total = original.new_zeros(len(original), dtype=torch.float64)
    for start in range(0, original.shape[2] - 1, FRAMES_AT_ONCE):
        parts = (clip[:, :, start : start + FRAMES_AT_ONCE + 1].float() for clip in (reconstruction, original))
        changes, wanted = (part.diff(dim=2) for part in parts)
        total += (changes - wanted).abs().sum(dim=(1, 2, 3, 4), dtype=torch.float64)
    number = original[0].numel() // original.shape[2] * (original.shape[2] - 1)
    return (total / number).float()


def rfvd() -> FrechetDistance:
    """Fréchet video distance (Unterthiner et al. 2018) of reconstructions from their originals, lower is better.

    The network is StyleGAN-V's `i3d_torchscript.pt`, which equals, to numerical precision, the I3D of Kinetics-400
    from TensorFlow Hub that FVD is defined with. Features and resizing are those of
    `zoo.metrics.networks.i3d_features`, all else as in `rfid`. Each clip counts as many samples as it has windows of 16
    frames, one after the other from the first; the rest, and a shorter clip, does not count. Frames are neither
    dropped nor repeated, so sets of different frame rates cannot be compared. NaN for fewer than two windows.

    Raises:
        WeightsUnavailableError: I3D's file is not on this machine; the message names the file and its source.
    """
    networks.I3D.require()
    from zoo.metrics.sets import FrechetDistance

    return FrechetDistance(clip_features, networks.I3D_FEATURES)


def clip_features(video: Tensor) -> Tensor:
    """Return I3D's features of all windows of 16 frames, `[B * (T // 16), 400]`, of `[B, 3, T, H, W]` in [0, 1]."""
    windows = [video[:, :, start : start + FVD_FRAMES] for start in range(0, video.shape[2], FVD_FRAMES)]
    features = [networks.i3d_features(window) for window in windows if window.shape[2] == FVD_FRAMES]
    return torch.cat(features) if features else video.new_zeros(0, networks.I3D_FEATURES, dtype=torch.float32)


def _mean_of_frames(figure: Callable[[Tensor, Tensor], Tensor], reconstruction: Tensor, original: Tensor) -> Tensor:
    _check_pair(reconstruction, original)
    figures = []
    for parts in zip(reconstruction.split(FRAMES_AT_ONCE, dim=2), original.split(FRAMES_AT_ONCE, dim=2), strict=True):
        frames = (part.movedim(2, 1).flatten(0, 1) for part in parts)
        figures.append(figure(*frames).reshape(len(original), -1))
    return torch.cat(figures, dim=1).mean(dim=1)


def _check_pair(reconstruction: Tensor, original: Tensor) -> None:
    for name, clips in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(clips, Tensor) or not clips.is_floating_point():
            came = clips.dtype if isinstance(clips, Tensor) else type(clips).__name__
            raise InputError(
                f"expected {name} as a float tensor [batch, 3, frames, height, width] in [0, 1], got {came}"
            )
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.numel() == 0:
            raise InputError(f"expected {name} as [batch, 3, frames, height, width], got {list(clips.shape)}")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )


def frame_psnr_metric(**settings: Any) -> Metric:
    """Return PSNR of frames as a metric, with the settings of the image metric; TypeError for others."""
    signature(image.psnr).bind(None, None, **settings)
    figure = partial(frame_psnr, **settings)
    return plain_metric("psnr", "PSNR", figure, unit="dB", digits=2, higher_is_better=True, settings=settings)


def frame_ssim_metric(**settings: Any) -> Metric:
    """Return SSIM of frames as a metric, with the settings of the image metric; TypeError for others."""
    signature(image.ssim).bind(None, None, **settings)
    return plain_metric("ssim", "SSIM", partial(frame_ssim, **settings), higher_is_better=True, settings=settings)


def frame_lpips_metric(name: str = "lpips", *, backbone: networks.Backbone = "vgg") -> Metric:
    """Return LPIPS of frames as a metric whose label names the backbone."""
    return plain_metric(
        name,
        networks.lpips_label(backbone),
        partial(frame_lpips, backbone=backbone),
        higher_is_better=False,
        missing=networks.LPIPS_BACKBONES[backbone].missing,
    )


VIDEO = {
    metric.name: metric
    for metric in (
        frame_psnr_metric(),
        frame_ssim_metric(),
        frame_lpips_metric(),
        frame_lpips_metric("lpips_alex", backbone="alex"),
        frame_lpips_metric("lpips_squeeze", backbone="squeeze"),
        Metric(
            name="rfvd",
            label="rFVD",
            digits=1,
            higher_is_better=False,
            of_set=lambda spec: rfvd(),
            missing=networks.I3D.missing,
        ),
        plain_metric("flicker", "Flicker", flicker, digits=4, higher_is_better=False),
    )
}
VIDEO_SETTINGS: dict[str, Callable[..., Metric]] = {
    "psnr": frame_psnr_metric,
    "ssim": frame_ssim_metric,
    "lpips": frame_lpips_metric,
}
