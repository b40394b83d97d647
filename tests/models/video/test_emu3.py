"""Emu3's tokenizer against transformers' port, at a small configuration."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import zoo
from zoo.facts import num_parameters
from zoo.models.video import emu3
from zoo.testing import small

WIDTH, ROWS = 128, 300  # 32 groups of four channels: with fewer, ours has fewer groups


@pytest.fixture
def port(registrations):
    """transformers' network with random weights, and our two variants of its size."""
    transformers = pytest.importorskip("transformers")
    for name in ("emu3-vision", "emu3-vision-video"):
        variant = zoo.info(name)
        zoo.register(
            f"{name}-small",
            variant.builder,
            spec=replace(variant.spec, name=f"{name}-small", codebook_sizes=(ROWS,)),
            config={"width": WIDTH, "num_blocks": 1},
            hub=variant.sources,
            card=variant.card,
        )
    config = transformers.Emu3VQVAEConfig(
        codebook_size=ROWS, base_channels=WIDTH, num_res_blocks=1, hidden_size=4 * WIDTH
    )
    torch.manual_seed(0)
    port = transformers.Emu3VQVAE(config).eval()
    with torch.no_grad():
        for name, tensor in port.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("conv_y.bias", "norm1.weight", "norm2.weight", "norm_layer.weight")):
                tensor.normal_(1, 0.1)
            elif tensor.is_floating_point():
                tensor.normal_(std=tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)
            if name.endswith(".weight") and (
                "time_conv" in name or name in ("encoder.conv_out.weight", "quant_conv.conv.weight")
            ):
                tensor *= 3  # as wide as the codebook, through a neck of four channels
        port.quantize.embedding.weight.normal_()
    return port


def loaded(name: str, port, folder) -> zoo.Tokenizer:
    save_file(port.state_dict(), folder / "model.safetensors")
    return zoo.load(name, weights=folder / "model.safetensors")


def test_an_image_has_the_codes_and_the_reconstruction_of_transformers(tmp_path, port):
    tokenizer = loaded("emu3-vision-small", port, tmp_path)
    image = torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack(port.encode(image * 2 - 1, torch.tensor([[48, 80]] * 2)).image_tokens)
        decoded = (port.decode(expected) / 2 + 0.5).clamp(0, 1)
    assert expected.unique().numel() > 10
    codes = tokenizer.encode(image)
    assert torch.equal(codes[:, 0], expected)
    torch.testing.assert_close(tokenizer.decode(codes), decoded, atol=1e-5, rtol=0)


def test_a_video_has_the_codes_and_the_reconstruction_of_transformers(tmp_path, port):
    tokenizer = loaded("emu3-vision-video-small", port, tmp_path)
    video = torch.rand(2, 3, 8, 40, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # The port crops the grid to a size of (frames, height) where a video is meant to have (height, width).
        found = port.encode((video * 2 - 1).transpose(1, 2), torch.tensor([[64, 64]] * 2)).image_tokens
        expected = torch.stack(list(found))
        decoded = (port.decode(expected).transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    assert expected.shape == (2, 2, 5, 3)
    codes = tokenizer.encode(video, chunk_frames=8)
    assert torch.equal(codes[:, 0], expected)
    torch.testing.assert_close(tokenizer.decode(codes, chunk_frames=8), decoded, atol=1e-5, rtol=0)


def test_an_image_is_a_clip_of_four_equal_frames():
    image, video = small("emu3-vision"), small("emu3-vision-video")
    video.load_state_dict(image.state_dict())
    x = torch.rand(1, 3, 24, 16)
    codes = image.encode(x)
    assert torch.equal(codes, video.encode(x[:, :, None].expand(-1, -1, 4, -1, -1))[:, :, 0])
    # The image's decoder computes one of the frames alone, with other sums.
    torch.testing.assert_close(image.decode(codes), video.decode(codes[:, :, None])[:, :, 0], atol=1e-6, rtol=0)


def test_frames_one_by_one_are_the_frames_at_once(monkeypatch):
    tokenizer = small("emu3-vision-video")
    video = torch.rand(1, 3, 8, 24, 16)
    with torch.no_grad():
        latent = tokenizer.to_latent(video)
        decoded = tokenizer.from_latent(latent)
        monkeypatch.setattr(emu3, "FEW", 1)
        torch.testing.assert_close(tokenizer.to_latent(video), latent, atol=1e-5, rtol=0)
        torch.testing.assert_close(tokenizer.from_latent(latent), decoded, atol=1e-5, rtol=0)


def test_the_published_variant_has_the_published_number_of_tensor_elements():
    assert num_parameters(zoo.info("emu3-vision")) / 1e6 == pytest.approx(270.7, abs=0.06)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (512, 512)),
        ((2000, 1500), (1176, 880)),
        ((600, 804), (600, 800)),  # 100.5 steps are 100, 101.5 are 102
        ((600, 812), (600, 816)),
        ((3000, 700), (2112, 488)),
    ],
)
def test_images_are_resized_as_the_authors_do(size, expected):
    image = torch.zeros(3, *size)
    assert small("emu3-vision").preprocess(image, resolution=1024).shape == (1, 3, *expected)


@pytest.mark.parametrize("size", [(7, 100), (100, 501)])
def test_an_image_that_the_authors_refuse_is_refused(size):
    with pytest.raises(zoo.InputError, match=f"got {size[0]}x{size[1]}"):
        small("emu3-vision").preprocess(torch.zeros(3, *size), resolution=1024)


def bounded(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """The authors' rule: multiples of 8 near the size, or else the size between the bounds that just keeps to them."""
    near = round(height / 8) * 8, round(width / 8) * 8  # halves to even, as Python rounds
    if least <= near[0] * near[1] <= most:
        return near
    too_large = near[0] * near[1] > most
    bound, whole = (most, math.floor) if too_large else (least, math.ceil)
    scale = math.sqrt(bound / (height * width))
    return whole(height * scale / 8) * 8, whole(width * scale / 8) * 8


@pytest.mark.parametrize("size", [(90, 160), (100, 60), (60, 84), (31, 97), (13, 60)])
def test_frames_are_resized_as_the_authors_resize_an_image(size):
    frames = np.random.default_rng(0).integers(256, size=(3, *size, 3), dtype=np.uint8)
    height, width = bounded(*size, 48**2, 96**2)
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    expected = np.stack([np.asarray(frame) for frame in resized]) / 255
    video = small("emu3-vision-video").preprocess(frames, resolution=96)
    np.testing.assert_allclose(video[0].permute(1, 2, 3, 0), expected, atol=1e-6)


def test_the_size_of_a_video_is_kept_unless_a_resolution_is_given():
    assert small("emu3-vision-video").preprocess(torch.zeros(3, 2, 90, 161)).shape == (1, 3, 2, 90, 161)
