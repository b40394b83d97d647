"""Perceptual losses against plain formulas and their metrics."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from zoo.errors import InputError
from zoo.metrics.image import lpips
from zoo.trainers.losses.perceptual import PERCEPTUAL_LOSSES, multi_scale_gradient_loss


@pytest.fixture
def images():
    """Reconstructions and originals `[2, 3, 40, 35]` in [0, 1]."""
    return torch.rand(2, 2, 3, 40, 35, generator=torch.Generator().manual_seed(1)).unbind()


@pytest.fixture
def no_checkpoints(tmp_path, monkeypatch) -> Path:
    """Torch hub's folder of checkpoints, empty for the time of a test."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_multi_scale_gradient_is_its_formula(images):
    reconstruction, original = (side.double().numpy() for side in images)
    terms = []
    for scale in range(4):
        if scale:
            reconstruction, original = (
                np.mean(
                    [
                        side[..., i : side.shape[2] // 2 * 2 : 2, j : side.shape[3] // 2 * 2 : 2]
                        for i in (0, 1)
                        for j in (0, 1)
                    ],
                    axis=0,
                )
                for side in (reconstruction, original)
            )
        for axis in (2, 3):
            slopes = [np.diff(side, axis=axis) for side in (reconstruction, original)]
            terms.append(np.abs(slopes[0] - slopes[1]).mean())
    assert multi_scale_gradient_loss(*images).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_multi_scale_gradient_does_not_see_a_constant_and_sees_a_blur(images):
    _, original = images
    assert multi_scale_gradient_loss(original + 0.1, original).item() == pytest.approx(0, abs=1e-6)
    blurred = F.avg_pool2d(original, 3, 1, 1, count_include_pad=False).requires_grad_()
    loss = multi_scale_gradient_loss(blurred, original)
    loss.backward()
    assert loss.item() > 0.05 and blurred.grad.abs().max() > 0


def test_frames_of_a_video_count_as_pictures(images):
    reconstruction, original = images
    videos = (side.reshape(1, 2, 3, 40, 35).transpose(1, 2) for side in images)  # [1, 3, 2, 40, 35]
    expected = multi_scale_gradient_loss(reconstruction, original).item()
    assert multi_scale_gradient_loss(*videos).item() == pytest.approx(expected, rel=1e-6)


def test_pictures_too_small_for_four_scales_are_refused(images):
    with pytest.raises(InputError, match="at least 16 pixels a side"):
        multi_scale_gradient_loss(*(side[..., :15] for side in images))


@pytest.mark.parametrize(
    ("name", "file"), [("lpips", "vgg16-397923af.pth"), ("convnext_logits", "convnext_small-0c510722.pth")]
)
def test_without_its_weights_a_loss_says_which_file_goes_where(name, file, no_checkpoints):
    with pytest.raises(InputError, match=rf"the {name} loss needs .*{file} is not in {no_checkpoints}") as raised:
        PERCEPTUAL_LOSSES[name]()
    assert f"https://download.pytorch.org/models/{file}" in str(raised.value)
    assert "random weights" in str(raised.value)
    assert str(raised.value).endswith("losses.multi_scale_gradient needs none")
    assert not any(no_checkpoints.iterdir())
    assert PERCEPTUAL_LOSSES["multi_scale_gradient"]() is multi_scale_gradient_loss


def spread(network: nn.Module) -> None:
    """Random weights that neither shrink nor blow up what passes."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


@pytest.fixture
def vgg16(no_checkpoints):
    """Random weights where the published ones would lie; the classifier's are zeros, stored once."""
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    spread(features)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    for index, (outputs, inputs) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        state[f"classifier.{index}.weight"] = torch.zeros(()).expand(outputs, inputs)
        state[f"classifier.{index}.bias"] = torch.zeros(outputs)
    torch.save(state, no_checkpoints / "vgg16-397923af.pth")


def test_the_lpips_loss_is_the_mean_of_the_metric_in_training_too(images, vgg16):
    loss = PERCEPTUAL_LOSSES["lpips"]().train()
    reconstruction, original = images
    reconstruction = reconstruction.clone().requires_grad_()
    value = loss(reconstruction, original)
    assert value.item() == pytest.approx(lpips(*images).mean().item(), rel=1e-5)
    assert loss(reconstruction, original).item() == value.item()  # no dropout
    value.backward()
    assert reconstruction.grad.isfinite().all() and reconstruction.grad.abs().max() > 0
    assert loss(original, original).item() == 0
    assert not list(loss.parameters()) and not loss.state_dict()
    with pytest.raises(InputError, match="at least 16 pixels"):
        loss(original[..., :15], original[..., :15])


def test_convnext_logits_are_compared_at_224_pixels(images, no_checkpoints):
    torch.manual_seed(0)
    network = torchvision.models.convnext_small().eval()
    torch.save(network.state_dict(), no_checkpoints / "convnext_small-0c510722.pth")
    loss = PERCEPTUAL_LOSSES["convnext_logits"]()
    prepare = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((224, 224), antialias=True),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    reconstruction, original = (side[:1] for side in images)
    with torch.no_grad():
        expected = (network(prepare(reconstruction)) - network(prepare(original))).square().mean()
    reconstruction = reconstruction.clone().requires_grad_()
    value = loss(reconstruction, original)
    assert value.item() == pytest.approx(expected.item(), rel=1e-3) and value.item() > 0
    value.backward()
    assert reconstruction.grad.abs().max() > 0
