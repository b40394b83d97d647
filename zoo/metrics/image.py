"""Images: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

from torch import Tensor

from zoo.errors import InputError

SSIM_WINDOW = 11


def psnr(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, `-10 log10(mean squared error)` over all pixels and channels.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1].

    Returns:
        `[B]` in dB, higher is better; infinite where the two are equal.

    Raises:
        InputError: another type, shape or dtype, or two that differ in shape.
    """
    _check_pair(reconstruction, original)
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(
        reconstruction.float(), original.float(), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )


def ssim(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), on each of red, green and blue and averaged over all pixels.

    Gaussian window of 11 pixels and sigma 1.5, K1 0.01, K2 0.03, population variances, borders reflected.

    Args:
        reconstruction, original: floating point `[B, 3, H, W]` in [0, 1], of at least 11 by 11 pixels.

    Returns:
        `[B]` in [-1, 1], higher is better.

    Raises:
        InputError: another type, shape or dtype, or two that differ in shape.
    """
    _check_pair(reconstruction, original)
    if min(original.shape[2:]) < SSIM_WINDOW:
        raise InputError(f"expected images of at least 11 by 11 pixels, got {list(original.shape)}")
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(
        reconstruction.float(),
        original.float(),
        sigma=1.5,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        reduction="none",
    )
    return similarity.reshape(len(original))


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
