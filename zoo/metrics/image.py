"""Images: noise, structural and perceptual similarity of pairs, and the distance of two sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.metrics import networks
from zoo.metrics.base import Metric, check_images, plain_metric
from zoo.metrics.reading import character_error_rate, reader_missing

if TYPE_CHECKING:
    from zoo.metrics.sets import FrechetDistance, InceptionScore, PooledPSNR

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
MS_SSIM_SIDE = 176  # halved four times, still as large as the window
LPIPS_SIDE, ALEX_SIDE = 16, 31  # halved four times, still a pixel; AlexNet starts with a window of 11 every 4 pixels


def psnr(reconstruction: Tensor, original: Tensor, *, floor: float = 0.0) -> Tensor:
    """Peak signal-to-noise ratio, `-10 log10(mean squared error + floor)` over all pixels and channels.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].
        floor: what some evaluations add to the error.

    Returns:
        `[B]` in dB, higher is better; infinite where the two are equal and `floor` is 0.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    check_images(reconstruction, original)
    return -10 * ((reconstruction.float() - original.float()).square().mean(dim=(1, 2, 3)) + floor).log10()


def ssim(
    reconstruction: Tensor,
    original: Tensor,
    *,
    window: Literal["gaussian", "uniform"] = "gaussian",
    size: int = SSIM_WINDOW,
    data_range: float = 1.0,
    sample_covariance: bool = False,
    borders: Literal["reflected", "left out"] = "reflected",
) -> Tensor:
    """Structural similarity (Wang et al. 2004) of red, green and blue each, averaged over all pixels.

    K1 is 0.01, K2 is 0.03. Papers differ in the other settings, and so do their figures: the defaults are those of
    torchmetrics; scikit-image's are a uniform window of 7 pixels, the covariance of a sample, and no borders.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].
        window: Gaussian of sigma 1.5, or uniform.
        size: side of the window in pixels, odd.
        data_range: difference of white and black that the constants are scaled by; 0: the greater of the ranges of
            the two images.
        sample_covariance: whether variances are those of a sample, not of a population.
        borders: "reflected" to half a window beyond the image, or "left out": only windows within the image count.

    Returns:
        `[B]` in [-1, 1], higher is better; NaN for images with a side shorter than the window.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    check_images(reconstruction, original)
    if min(original.shape[2:]) < size:
        return _not_defined(original)
    x, y = reconstruction.float(), original.float()
    spread = x.new_full((len(x), 1, 1, 1), data_range)
    if data_range == 0:
        ranges = [images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3)) for images in (x, y)]
        spread = torch.maximum(*ranges)[:, None, None, None]
    if borders == "reflected":
        x, y = (F.pad(images, [size // 2] * 4, mode="reflect") for images in (x, y))
    places = torch.arange(size, device=x.device) - size // 2
    weights = torch.ones_like(places).float() if window == "uniform" else (-(places**2) / (2 * SSIM_SIGMA**2)).exp()
    weights = (weights / weights.sum()).expand(3, 1, -1)
    rows, columns = weights[..., None], weights[..., None, :]
    mean_x, mean_y, square_x, square_y, product = (
        F.conv2d(F.conv2d(images, rows, groups=3), columns, groups=3) for images in (x, y, x * x, y * y, x * y)
    )
    scale = size**2 / (size**2 - 1) if sample_covariance else 1
    variances = scale * (square_x - mean_x**2).clamp(min=0) + scale * (square_y - mean_y**2).clamp(min=0)
    covariance = scale * (product - mean_x * mean_y)
    first, second = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    figure = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    return (figure / ((mean_x**2 + mean_y**2 + first) * (variances + second))).mean(dim=(1, 2, 3))


def ms_ssim(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Structural similarity on five scales (Wang, Simoncelli and Bovik 2003), by torchmetrics.

    Window and constants are those of `ssim`. Each scale has half the side of the one before, by means of 2 by 2
    pixels; the exponents are 0.0448, 0.2856, 0.3001, 0.2363, 0.1333. The figure of a scale is the mean over red, green,
    blue and all pixels; a negative one counts as 0. As in torchmetrics, contrast and structure leave out the 5 pixels
    next to the border, and the coarsest scale counts all pixels, its borders reflected.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        `[B]` in [0, 1], higher is better. NaN for images with a side of less than 176 pixels, whose fifth scale is
        smaller than the window.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    check_images(reconstruction, original)
    if min(original.shape[2:]) < MS_SSIM_SIDE:
        return _not_defined(original)
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    return multiscale_structural_similarity_index_measure(
        reconstruction.float(),
        original.float(),
        sigma=1.5,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        reduction="none",
        normalize="relu",
    ).reshape(len(original))


def lpips(
    reconstruction: Tensor, original: Tensor, *, backbone: networks.Backbone = "vgg", from_minus_one: bool = True
) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1), by torchmetrics.

    VGG16 is the backbone that VQGAN and its followers train and report with; the authors' own default is AlexNet,
    whose figures differ. Images are compared in full resolution.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].
        backbone: "vgg" (VGG16), "alex" (AlexNet) or "squeeze" (SqueezeNet 1.1).
        from_minus_one: whether images are scaled to [-1, 1], as the networks expect. Some evaluations leave that out.

    Returns:
        float32 `[B]`, at least 0, lower is better. NaN for images with a side of less than 16 pixels, or 31 with
        AlexNet.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
        WeightsUnavailableError: the backbone's weights are not on this machine; the message names the file and its
            source.
    """
    check_images(reconstruction, original)
    networks.LPIPS_BACKBONES[backbone].require()
    if min(original.shape[2:]) < (ALEX_SIDE if backbone == "alex" else LPIPS_SIDE):
        return _not_defined(original)
    return networks.perceptual_distance(
        reconstruction.float(), original.float(), backbone=backbone, from_minus_one=from_minus_one
    )


def pooled_psnr() -> PooledPSNR:
    """PSNR of a whole set, of the squared error of all its pixels: see `PooledPSNR`."""
    from zoo.metrics.sets import PooledPSNR

    return PooledPSNR()


def rfid() -> FrechetDistance:
    """Fréchet Inception distance of reconstructions from their originals, lower is better.

    The network, its weights and the resizing are those of the original FID, by torch-fidelity: see
    `zoo.metrics.networks.inception`. Images are taken whole, in the size that they were reconstructed in. Papers report
    rFID on ImageNet's 50,000 validation images at 256 by 256; fewer images give larger figures.

    Raises:
        WeightsUnavailableError: torch-fidelity or Inception's weights are not on this machine; it names what to get.
    """
    networks.INCEPTION.require()
    from zoo.metrics.sets import FrechetDistance

    return FrechetDistance(networks.inception_features, networks.INCEPTION_FEATURES)


def inception_score() -> InceptionScore:
    """Inception score of the reconstructions in one split, higher is better: see `InceptionScore`.

    The network is that of `rfid`; its logits are taken without the bias, as in torch-fidelity and the authors' code.

    Raises:
        WeightsUnavailableError: torch-fidelity or Inception's weights are not on this machine; it names what to get.
    """
    networks.INCEPTION.require()
    from zoo.metrics.sets import InceptionScore

    return InceptionScore(networks.inception_logits, networks.INCEPTION_CLASSES)


def _not_defined(original: Tensor) -> Tensor:
    return torch.full((len(original),), torch.nan, device=original.device)


def psnr_metric(*, over: Literal["items", "set"] = "items", floor: float = 0.0) -> Metric:
    """Return PSNR as a metric: the mean over the images, or that of the error of the whole set."""
    shown: dict[str, Any] = {"unit": "dB", "digits": 2, "higher_is_better": True}
    if over == "set":
        return Metric(
            name="psnr", label="PSNR of the set", of_set=lambda spec: pooled_psnr(), settings={"over": over}, **shown
        )
    settings = {"floor": floor} if floor else {}
    return plain_metric("psnr", "PSNR", partial(psnr, floor=floor), settings=settings, **shown)


def ssim_metric(**settings: Any) -> Metric:
    """Return SSIM as a metric, with the settings of `ssim`; TypeError for others."""
    signature(ssim).bind(None, None, **settings)
    return plain_metric("ssim", "SSIM", partial(ssim, **settings), settings=settings, higher_is_better=True)


def lpips_metric(name: str = "lpips", *, backbone: networks.Backbone = "vgg", from_minus_one: bool = True) -> Metric:
    """Return LPIPS as a metric whose label names the backbone."""
    return plain_metric(
        name,
        networks.lpips_label(backbone),
        partial(lpips, backbone=backbone, from_minus_one=from_minus_one),
        higher_is_better=False,
        settings={} if from_minus_one else {"backbone": backbone, "from_minus_one": from_minus_one},
        missing=networks.LPIPS_BACKBONES[backbone].missing,
    )


IMAGE = {
    metric.name: metric
    for metric in (
        psnr_metric(),
        ssim_metric(),
        plain_metric("ms_ssim", "MS-SSIM", ms_ssim, higher_is_better=True),
        lpips_metric(),
        lpips_metric("lpips_alex", backbone="alex"),
        lpips_metric("lpips_squeeze", backbone="squeeze"),
        plain_metric(
            "character_error_rate",
            "Character error rate",
            character_error_rate,
            higher_is_better=False,
            missing=reader_missing,
        ),
        Metric(
            name="rfid",
            label="rFID",
            digits=2,
            higher_is_better=False,
            of_set=lambda spec: rfid(),
            missing=networks.INCEPTION.missing,
        ),
        Metric(
            name="inception_score",
            label="Inception score",
            digits=2,
            higher_is_better=True,
            of_set=lambda spec: inception_score(),
            missing=networks.INCEPTION.missing,
        ),
    )
}
IMAGE_SETTINGS: dict[str, Callable[..., Metric]] = {"psnr": psnr_metric, "ssim": ssim_metric, "lpips": lpips_metric}
