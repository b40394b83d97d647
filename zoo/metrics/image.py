"""Images: noise, structural and perceptual similarity of pairs, and the distance of two sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics import networks
from zoo.metrics.base import Metric, plain_metric

if TYPE_CHECKING:
    from zoo.metrics.sets import FrechetDistance, InceptionScore

SSIM_WINDOW = 11
MS_SSIM_SIDE = 176  # halved four times, still as large as the window
LPIPS_SIDE = 16  # halved four times, still a pixel


def psnr(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, `-10 log10(mean squared error)` over all pixels and channels.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        `[B]` in dB, higher is better; infinite where the two are equal.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    _check_pair(reconstruction, original)
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(
        reconstruction.float(), original.float(), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )


def ssim(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of red, green and blue each, averaged over all pixels.

    The window is Gaussian, of 11 pixels and sigma 1.5; K1 is 0.01, K2 is 0.03; variances are those of a population;
    borders are reflected.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        `[B]` in [-1, 1], higher is better; NaN for images with a side of less than 11 pixels.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
    """
    _check_pair(reconstruction, original)
    if min(original.shape[2:]) < SSIM_WINDOW:
        return torch.full((len(original),), torch.nan, device=original.device)
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(
        reconstruction.float(),
        original.float(),
        sigma=1.5,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(similarity, Tensor), "a tuple is returned on request alone"
    return similarity.reshape(len(original))


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
    _check_pair(reconstruction, original)
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


def lpips(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1) through VGG16, by torchmetrics.

    VGG16 is the backbone that VQGAN and its followers train and report with; the authors' own default is AlexNet,
    whose figures differ. Images are compared in full resolution.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        float32 `[B]`, at least 0, lower is better. NaN for images with a side of less than 16 pixels.

    Raises:
        InputError: a wrong type, shape or dtype, or two shapes that differ.
        WeightsUnavailableError: VGG16's weights are not on this machine; the message names the file and its source.
    """
    _check_pair(reconstruction, original)
    networks.VGG16.require()
    if min(original.shape[2:]) < LPIPS_SIDE:
        return _not_defined(original)
    return networks.vgg16_distance(reconstruction.float(), original.float())


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


def _check_pair(reconstruction: Tensor, original: Tensor) -> None:
    for name, images in (("reconstruction", reconstruction), ("original", original)):
        if not isinstance(images, Tensor) or not images.is_floating_point():
            came = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"expected {name} as a float tensor [batch, 3, height, width] in [0, 1], got {came}")
        if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
            raise InputError(f"expected {name} as [batch, 3, height, width], got {list(images.shape)}")
    if reconstruction.shape != original.shape:
        raise InputError(
            f"expected a reconstruction of its original's shape {list(original.shape)}, "
            f"got {list(reconstruction.shape)}"
        )


IMAGE = {
    metric.name: metric
    for metric in (
        plain_metric("psnr", "PSNR", psnr, unit="dB", digits=2, higher_is_better=True),
        plain_metric("ssim", "SSIM", ssim, higher_is_better=True),
        plain_metric("ms_ssim", "MS-SSIM", ms_ssim, higher_is_better=True),
        plain_metric("lpips", "LPIPS", lpips, higher_is_better=False, missing=networks.VGG16.missing),
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
