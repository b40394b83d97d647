"""Figures of video, each against its own computation; I3D is a network with random weights in its place."""

from pathlib import Path

import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import Tensor, nn

import zoo
from zoo.errors import InputError, WeightsUnavailableError
from zoo.media import load_image
from zoo.metrics import image, networks, video
from zoo.metrics.video import VIDEO, flicker, frame_lpips, frame_psnr, frame_ssim, rfvd


@pytest.fixture(scope="module")
def clips() -> tuple[Tensor, Tensor]:
    """Reconstructions and originals `[2, 3, 19, 48, 40]`: pans over a photograph; noise, and a constant shift."""
    with get_sample_data("grace_hopper.jpg") as file:
        photograph = load_image(Image.open(file).convert("RGB"))
    starts = [(40, 150, 2, 3), (300, 80, -1, 4)]
    originals = torch.stack(
        [
            torch.stack(
                [
                    photograph[:, top + t * down : top + t * down + 48, left + t * right : left + t * right + 40]
                    for t in range(19)
                ],
                dim=1,
            )
            for top, left, down, right in starts
        ]
    )
    noise = 0.1 * torch.randn(originals[0].shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([(originals[0] + noise).clamp(0, 1), 0.8 * originals[1] + 0.1]), originals


@pytest.fixture
def no_checkpoints(tmp_path, monkeypatch) -> Path:
    """Torch hub's folder of checkpoints, empty for the time of a test."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


# Frame by frame


@pytest.mark.parametrize(("figure", "of_frame"), [(frame_psnr, image.psnr), (frame_ssim, image.ssim)])
def test_a_figure_of_frames_is_the_mean_over_them(clips, figure, of_frame):
    expected = [
        torch.stack([of_frame(*(clip[i : i + 1, :, t] for clip in clips)) for t in range(19)]).mean().item()
        for i in range(2)
    ]
    assert figure(*clips).tolist() == pytest.approx(expected, rel=1e-5)
    assert figure(*(clip[1:, :, :1] for clip in clips)).shape == (1,)


def test_lpips_of_a_clip_is_the_mean_over_its_frames(clips, monkeypatch, no_checkpoints):
    (no_checkpoints / "vgg16-397923af.pth").touch()
    monkeypatch.setattr(
        networks, "perceptual_distance", lambda first, second, **settings: (first - second).abs().amax(dim=(1, 2, 3))
    )
    expected = (clips[0] - clips[1]).abs().amax(dim=(1, 3, 4)).mean(dim=1)
    assert torch.allclose(frame_lpips(*clips), expected)


def test_without_vgg16_lpips_of_a_clip_says_which_file_goes_where(clips, no_checkpoints):
    assert f"vgg16-397923af.pth is not in {no_checkpoints}" in VIDEO["lpips"].missing()
    with pytest.raises(WeightsUnavailableError, match="vgg16"):
        frame_lpips(*clips)


# Flicker


def test_flicker_is_the_mean_error_of_the_differences_of_frames(clips):
    expected = []
    for reconstruction, original in zip(*(clip.double() for clip in clips), strict=True):
        errors = [
            ((reconstruction[:, t + 1] - reconstruction[:, t]) - (original[:, t + 1] - original[:, t])).abs().mean()
            for t in range(18)
        ]
        expected.append((sum(errors) / 18).item())
    assert expected[0] > 3 * expected[1] > 0
    assert flicker(*clips).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_constant_error_does_not_flicker_and_a_frame_alone_cannot(clips):
    _, original = clips
    assert flicker(original + 0.25, original).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert flicker(original, original).tolist() == [0, 0]
    assert flicker(original[:, :, :1], original[:, :, :1]).isnan().all()
    alternating = torch.tensor([0.0, 1.0]).repeat(17)[None, None, :, None, None].expand(1, 3, 34, 4, 4)
    assert flicker(alternating, 1 - alternating).tolist() == [2]


# rFVD


class RandomI3D(nn.Module):
    """Takes and gives what StyleGAN-V's file does."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(3, 400, 4, 4)

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = True) -> Tensor:
        if rescale:
            x = x * (2 / 255) - 1
        return self.convolution(x).abs().mean(dim=(2, 3, 4))


def test_rfvd_is_the_frechet_distance_of_the_features_of_windows_of_16_frames(clips, no_checkpoints):
    torch.manual_seed(0)
    network = RandomI3D()
    torch.jit.script(network).save(no_checkpoints / "i3d_torchscript.pt")
    assert VIDEO["rfvd"].missing() is None
    spec = zoo.info("wetok-nano").spec
    one, other = (VIDEO["rfvd"].streaming(spec) for _ in range(2))
    reconstruction, original = clips
    doubled = [torch.cat([clip, clip.flip(2)], dim=2) for clip in clips]  # 38 frames: two windows
    one.update(reconstruction, original)
    other.update(*doubled)
    other.update(reconstruction[:, :, :15], original[:, :, :15])  # too short to count
    one.merge_state(other)
    with torch.no_grad():
        pairs = zip(clips, doubled, strict=True)
        windows = [[clip[:, :, :16], twice[:, :, :16], twice[:, :, 16:32]] for clip, twice in pairs]
        first, second = (
            torch.cat([network((255 * window).round() / 127.5 - 1, rescale=False) for window in side]).double()
            for side in windows
        )
    shift = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    first, second = ((side - side.mean(dim=0)) / 5**0.5 for side in (first, second))
    overlap = torch.linalg.matrix_norm(first @ second.T, "nuc")
    expected = (shift + first.square().sum() + second.square().sum() - 2 * overlap).item()
    assert one.reconstruction_count == one.original_count == 6
    assert one.compute().item() == pytest.approx(expected, rel=1e-3)


def test_without_i3d_rfvd_says_which_file_goes_where(no_checkpoints):
    message = VIDEO["rfvd"].missing()
    assert f"i3d_torchscript.pt is not in {no_checkpoints}; put it there, from https://www.dropbox.com" in message
    with pytest.raises(WeightsUnavailableError, match=r"i3d_torchscript\.pt"):
        rfvd()


# All


@pytest.mark.parametrize("figure", [frame_psnr, frame_ssim, flicker])
def test_clips_that_do_not_pair_are_refused(clips, figure):
    reconstruction, original = clips
    for bad, message in [
        (reconstruction[0], r"expected reconstruction as \[batch, 3, frames, height, width\], got \[3, 19, 48, 40\]"),
        (reconstruction[:, :, 1:], r"original's shape \[2, 3, 19, 48, 40\], got \[2, 3, 18, 48, 40\]"),
        (reconstruction[:, :, :0], r"got \[2, 3, 0, 48, 40\]"),
        ((reconstruction * 255).to(torch.uint8), "got torch.uint8"),
        (reconstruction.numpy(), "got ndarray"),
    ]:
        with pytest.raises(InputError, match=message):
            figure(bad, original)


@pytest.mark.parametrize("figure", [frame_psnr, frame_ssim, flicker])
def test_half_precision_clips_are_compared_in_full(clips, figure):
    half = [clip.bfloat16() for clip in clips]
    assert torch.equal(figure(*half), figure(*(clip.float() for clip in half)))


def test_every_metric_of_video_gives_the_figure_that_it_is_named_for(clips):
    spec = zoo.info("wetok-nano").spec
    assert list(VIDEO) == ["psnr", "ssim", "lpips", "lpips_alex", "lpips_squeeze", "rfvd", "flicker"]
    for name, figure in (("psnr", frame_psnr), ("ssim", frame_ssim), ("flicker", flicker)):
        metric = VIDEO[name].streaming(spec)
        metric.update(*clips)
        assert metric.compute().item() == pytest.approx(figure(*clips).double().mean().item())
        assert VIDEO[name].missing() is None
    assert video.FVD_FRAMES == 16
