"""Adversarial losses against plain formulas."""

import math

import pytest
import torch

from zoo.trainers.adversarial.discriminators import PatchGAN
from zoo.trainers.adversarial.losses import GAN_LOSSES, LeCAM, adaptive_weight, feature_matching_loss, r1_penalty


@pytest.fixture
def logits():
    """Of originals and reconstructions, `[3, 1, 2, 5]`, on both sides of 1 and of -1."""
    real, fake = torch.randn(2, 3, 1, 2, 5, generator=torch.Generator().manual_seed(0)).unbind()
    return 2 * real + 0.3, 2 * fake - 0.4


# Losses of two networks


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


FORMULAS = {
    "hinge": (
        lambda real, fake: 0.5 * (mean(max(0, 1 - x) for x in real) + mean(max(0, 1 + x) for x in fake)),
        lambda fake, items: -mean(fake),
    ),
    "clamped_hinge": (
        lambda real, fake: mean(max(0, 1 - x) for x in real) + mean(max(0, 1 + x) for x in fake),
        lambda fake, items: mean(max(0, 1 - x) for x in fake),
    ),
    "hinge_non_saturating": (
        lambda real, fake: 0.5 * (mean(max(0, 1 - x) for x in real) + mean(max(0, 1 + x) for x in fake)),
        lambda fake, items: mean(softplus(-mean(item)) for item in items),
    ),
    "non_saturating": (
        lambda real, fake: mean(softplus(-x) for x in real) + mean(softplus(x) for x in fake),
        lambda fake, items: mean(softplus(-x) for x in fake),
    ),
    "least_squares": (
        lambda real, fake: mean((x - 1) ** 2 for x in real) + mean(x**2 for x in fake),
        lambda fake, items: mean((x - 1) ** 2 for x in fake),
    ),
}


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_adversarial_losses_are_their_formulas(name, logits):
    of_discriminator, of_generator = GAN_LOSSES[name]
    real, fake = (side.double().flatten().tolist() for side in logits)
    items = logits[1].double().flatten(1).tolist()
    expected_of_discriminator, expected_of_generator = FORMULAS[name]
    assert of_discriminator(*logits).item() == pytest.approx(expected_of_discriminator(real, fake), rel=1e-5)
    assert of_generator(logits[1]).item() == pytest.approx(expected_of_generator(fake, items), rel=1e-5)


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_the_two_pull_fake_logits_apart(name):
    fake = torch.zeros(4, 1, requires_grad=True)
    real = torch.zeros(4, 1, requires_grad=True)
    of_discriminator, of_generator = GAN_LOSSES[name]
    pulls = torch.autograd.grad(of_discriminator(real, fake + 0.5), (real, fake))
    assert (pulls[0] < 0).all() and (pulls[1] > 0).all()
    (pull,) = torch.autograd.grad(of_generator(fake), fake)
    assert (pull < 0).all()


def test_large_logits_do_not_overflow():
    for of_discriminator, of_generator in GAN_LOSSES.values():
        large = torch.full((2, 1), 1e4)
        assert of_discriminator(-large, large).isfinite() and of_generator(-large).isfinite()


# Feature matching


def test_feature_matching_is_the_sum_of_mean_differences_over_maps_and_networks():
    generator = torch.Generator().manual_seed(0)
    sizes = [[(2, 3, 5), (2, 4)], [], [(2, 7)]]

    def outputs() -> list:
        return [
            (torch.randn(2, 1, generator=generator), [torch.randn(*size, generator=generator) for size in network])
            for network in sizes
        ]

    real, fake = outputs(), outputs()
    expected = sum(
        float((ours.double() - theirs.double()).abs().sum()) / ours.numel()
        for (_, real_maps), (_, fake_maps) in zip(real, fake, strict=True)
        for theirs, ours in zip(real_maps, fake_maps, strict=True)
    )
    assert feature_matching_loss(real, fake).item() == pytest.approx(expected, rel=1e-5)


def test_feature_matching_moves_the_fake_side_only():
    real, fake = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    feature_matching_loss([(real, [real])], [(fake, [fake])]).backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, (fake - real).sign() / 6)


# Adaptive weight


@pytest.fixture
def decoder():
    """Last layer w = (1, 2), its input h = (3, -1), original 2: the reconstruction is w . h = 1."""
    w, h = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, -1.0], requires_grad=True)
    return w, w @ h


def test_adaptive_weight_of_a_case_worked_by_hand(decoder):
    w, reconstruction = decoder
    squared_error = (reconstruction - 2) ** 2  # gradient 2 (1 - 2) h, norm 2 sqrt(10)
    adversarial = -0.25 * reconstruction  # gradient -0.25 h, norm 0.25 sqrt(10)
    weight = adaptive_weight(squared_error, adversarial, w, limit=1e4)
    assert weight.item() == pytest.approx(2 * math.sqrt(10) / (0.25 * math.sqrt(10) + 1e-4), rel=1e-6)
    assert not weight.requires_grad and w.grad is None
    (squared_error + weight * adversarial).backward()  # the graphs are still there
    torch.testing.assert_close(w.grad, (-2 - weight * 0.25) * torch.tensor([3.0, -1.0]))


def test_adaptive_weight_has_a_limit(decoder):
    w, reconstruction = decoder
    loss = (reconstruction - 2) ** 2
    assert adaptive_weight(loss, 0 * reconstruction, w, limit=1e4).item() == 1e4  # without: 2 sqrt(10) / 1e-4
    assert adaptive_weight(loss, -0.25 * reconstruction, w, limit=2.0).item() == 2
    assert adaptive_weight(0 * loss, -0.25 * reconstruction, w, limit=2.0).item() == 0


# LeCAM


def test_lecam_step_by_step():
    lecam = LeCAM(decay=0.9)
    real, fake = torch.tensor([[2.0], [4.0]]), torch.tensor([[-1.0], [0.1]])
    # Means after the first step: real 0.1 * 3 = 0.3, fake 0.1 * -0.45 = -0.045.
    first = (2.045**2 + 4.045**2) / 2 + (1.3**2 + 0.2**2) / 2
    assert lecam(real, fake).item() == pytest.approx(first, rel=1e-6)
    assert [lecam.real_mean.item(), lecam.fake_mean.item()] == pytest.approx([0.3, -0.045], rel=1e-6)
    # After the second: real 0.9 * 0.3 + 0.1 * -1 = 0.17, fake 0.9 * -0.045 + 0.1 * 0.5 = 0.0095.
    real, fake = torch.tensor([[-2.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    assert lecam(real, fake).item() == pytest.approx(0.17**2 / 2, rel=1e-5)
    assert [lecam.real_mean.item(), lecam.fake_mean.item()] == pytest.approx([0.17, 0.0095], rel=1e-5)


def test_lecam_follows_the_mean_over_many_steps(logits):
    lecam, decay = LeCAM(), 0.999
    for step in range(1, 40):
        lecam(*logits)
        expected = [(1 - decay**step) * side.mean().item() for side in logits]
        assert [lecam.real_mean.item(), lecam.fake_mean.item()] == pytest.approx(expected, rel=1e-3)


def test_lecam_moves_logits_and_not_its_means(logits):
    lecam = LeCAM(decay=0.5)
    real, fake = (side.requires_grad_() for side in logits)
    (lecam(real, fake) + lecam(real, fake)).backward()
    assert real.grad.abs().max() > 0 and fake.grad.abs().max() > 0
    assert not lecam.real_mean.requires_grad


def test_lecam_goes_on_from_its_state(logits):
    lecam, resumed = LeCAM(), LeCAM()
    lecam(*logits)
    resumed.load_state_dict(lecam.state_dict())
    assert resumed(*logits).item() == lecam(*logits).item()


# R1


def test_r1_of_a_case_worked_by_hand():
    real = torch.tensor([[1.0, 2.0], [0.0, -3.0]], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    # Two logits an item, scale * |x|² and x_0: the gradient of their sum is 2 scale x + (1, 0).
    logits = torch.stack([scale * real.square().sum(dim=1), real[:, 0]], dim=1)
    penalty = r1_penalty(logits, real)
    assert penalty.item() == pytest.approx(((1 + 1) ** 2 + 2**2 + (0 + 1) ** 2 + 3**2) / 2)
    penalty.backward()
    # d/ds of the mean of (2 s x_0 + 1)² + (2 s x_1)², at s = 0.5
    assert scale.grad.item() == pytest.approx((2 * 2 * 2 + 2 * 2 * 4 + 0 + 2 * 3 * 6) / 2)


def test_r1_is_the_mean_of_what_each_item_gives_alone():
    torch.manual_seed(0)
    network = PatchGAN(width=4).eval()  # batch norm by its running statistics: items do not mix
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    expected = []
    for image in images:
        image = image[None].requires_grad_()
        network(image)[0][0].sum().backward()
        expected.append(image.grad.square().sum().item())
    real = images.requires_grad_()
    assert r1_penalty(network(real)[0][0], real).item() == pytest.approx(sum(expected) / 3, rel=1e-5)
