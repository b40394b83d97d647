"""Perceptual losses of images: through published networks or, without any network, through edges.

All take reconstruction and original as float `[B, 3, H, W]` or `[B, 3, T, H, W]` in [0, 1], where frames count as
items, and return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.metrics.image import LPIPS_SIDE
from zoo.metrics.networks import VGG16, Weights
from zoo.trainers.frames import frames
from zoo.trainers.frozen import Frozen, require

CONVNEXT_SMALL = Weights(
    network="ConvNeXt-S (torchvision, ImageNet)",
    names=("convnext_small-0c510722.pth",),
    url="https://download.pytorch.org/models/convnext_small-0c510722.pth",
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

WITHOUT_WEIGHTS = "losses.multi_scale_gradient needs none"

GRADIENT_SCALES = 4
GRADIENT_SIDE = 2 * 2 ** (GRADIENT_SCALES - 1)  # two pixels at the coarsest scale


class Perceptual(nn.Module):
    """Mean LPIPS (Zhang 2018, version 0.1) through VGG16, as in `zoo.metrics`, without dropout.

    Raises:
        InputError: VGG16's weights are not in torch hub's folder of checkpoints, or images of less than 16 pixels a
            side.
    """

    def __init__(self) -> None:
        super().__init__()
        require(VGG16, "the lpips loss", WITHOUT_WEIGHTS)
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        self.lpips = Frozen(LearnedPerceptualImagePatchSimilarity(net_type="vgg").net)

    def forward(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        if min(original.shape[-2:]) < LPIPS_SIDE:
            raise InputError(f"expected at least {LPIPS_SIDE} pixels a side for LPIPS, got {list(original.shape)}")
        return self.lpips.network(frames(reconstruction), frames(original), normalize=True).mean()


class ConvNeXtLogits(nn.Module):
    """Mean squared difference of ConvNeXt-S's 1000 logits (TiTok, One-D-Piece).

    Images are resized to 224 by 224, bilinear and antialiased, and normalised with ImageNet's mean and deviation.

    Raises:
        InputError: the weights are not in torch hub's folder of checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        require(CONVNEXT_SMALL, "the convnext_logits loss", WITHOUT_WEIGHTS)
        from torchvision.models import ConvNeXt_Small_Weights, convnext_small

        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.convnext = Frozen(convnext_small(weights=ConvNeXt_Small_Weights.IMAGENET1K_V1))

    def forward(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        return functional.mse_loss(self._logits(reconstruction), self._logits(original))

    def _logits(self, images: Tensor) -> Tensor:
        images = functional.interpolate(frames(images), (224, 224), mode="bilinear", antialias=True)
        return self.convnext(self.normalize(images))


def multi_scale_gradient_loss(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference of the gradients of two images, on four scales, without any learned weights.

    A scale's gradients are the differences of neighbours along rows and along columns; each scale is half the one
    before, by means of 2 by 2 pixels (an odd last row or column is dropped). Mean over rows and columns of the mean
    absolute difference, and mean over scales: 0 for equal images and for images that differ by a constant, so it should
    be used together with a pixel loss. It sees lost and false edges, fine and coarse, but no textures or objects, which
    LPIPS sees.

    Raises:
        InputError: images of less than 16 pixels a side.
    """
    if min(original.shape[-2:]) < GRADIENT_SIDE:
        raise InputError(f"expected at least {GRADIENT_SIDE} pixels a side, got {list(original.shape)}")
    # Gradients are linear: the gradients' difference is the gradient of the difference.
    difference, terms = frames(reconstruction) - frames(original), []
    for scale in range(GRADIENT_SCALES):
        if scale:
            difference = functional.avg_pool2d(difference, 2)
        terms += [difference.diff(dim=axis).abs().mean() for axis in (-1, -2)]
    return torch.stack(terms).mean()


class Normalize(nn.Module):
    """`[B, 3, H, W]` minus `mean`, divided by `deviation`, both per channel."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]):
        super().__init__()
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.deviation


# By name: a function that makes the loss. The first two raise InputError if the weights of their network are missing.
PERCEPTUAL_LOSSES: dict[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {
    "lpips": Perceptual,
    "convnext_logits": ConvNeXtLogits,
    "multi_scale_gradient": lambda: multi_scale_gradient_loss,
}
