"""VidTok: the networks that no golden is of against diffusers', and large frames in strips."""

from dataclasses import replace

import pytest
import torch

import zoo
from zoo.facts import num_parameters
from zoo.models.video.vidtok import blocks
from zoo.models.video.vidtok import tokenizer as vidtok
from zoo.testing import small

WIDTH, NUM_BLOCKS, LEVELS = 16, 1, (8, 8, 8, 8)
OTHERS = ("vidtok-fsq-noncausal-488-262144", "vidtok-fsq-causal-488-32768-v1.1", "vidtok-fsq-causal-888-32768-v1.1")


def variant_and_port(like: str, multipliers: tuple[int, ...], halved: tuple[int, ...], doubled: tuple[int, ...]):
    """A registered small variant, and diffusers' network with random weights."""
    diffusers = pytest.importorskip("diffusers")
    variant = zoo.info(like)
    is_causal = variant.spec.causal
    time, space = 2 ** len(halved), 2 ** (len(multipliers) - 1)
    spec = replace(
        variant.spec, name="vidtok-small", codebook_sizes=(8 ** len(LEVELS),), downsample=(time, space, space)
    )
    config = {
        **variant.config,
        "width": WIDTH,
        "num_blocks": NUM_BLOCKS,
        "levels": LEVELS,
        "multipliers": multipliers,
        "halved": halved,
        "doubled": doubled,
    }
    keys = vidtok.key_map(len(multipliers), variant.config["border"], ())
    zoo.register("vidtok-small", variant.builder, spec=spec, config=config, keys=keys, card="vidtok")
    torch.manual_seed(0)
    port = diffusers.AutoencoderVidTok(
        ch=WIDTH,
        ch_mult=list(multipliers),
        z_channels=len(LEVELS),
        double_z=False,
        num_res_blocks=NUM_BLOCKS,
        tempo_ds=list(halved),
        tempo_us=[len(multipliers) - 1 - i for i in doubled],
        regularizer="fsq",
        codebook_size=8 ** len(LEVELS),
        is_causal=is_causal,
    ).eval()
    with torch.no_grad():
        for name, parameter in port.named_parameters():
            if name.endswith("mix_factor"):
                parameter.normal_(0.3, 0.5)
            elif parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return port


@pytest.mark.parametrize(
    ("like", "multipliers", "halved", "doubled", "frames"),
    [
        ("vidtok-fsq-noncausal-488-262144", (1, 2, 2), (0, 1), (0, 1), 16),
        ("vidtok-fsq-noncausal-41616-262144", (1, 1, 2, 2), (1, 2), (1, 2), 32),
        ("vidtok-fsq-causal-488-32768-v1.1", (1, 2, 2), (0, 1), (0, 1), 17),
        ("vidtok-fsq-causal-888-32768-v1.1", (1, 1, 2, 2), (0, 1, 2), (0, 1, 2), 25),
    ],
)
def test_codes_and_frames_are_those_of_diffusers(tmp_path, registrations, like, multipliers, halved, doubled, frames):
    port = variant_and_port(like, multipliers, halved, doubled)
    torch.save(port.state_dict(), tmp_path / "vidtok.ckpt")
    tokenizer = zoo.load("vidtok-small", weights=tmp_path / "vidtok.ckpt")
    video = torch.rand(2, 3, frames, 24, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        padded = video * 2 - 1
        if port.is_causal:
            padded = torch.cat([padded[:, :, :1]] * (2 ** len(halved) - 1) + [padded], dim=2)
        _, indices = port.encode(padded)
        expected = (port.decode(indices, decode_from_indices=True) / 2 + 0.5).clamp(0, 1)
    assert indices.unique().numel() > indices.numel() / 4
    codes = tokenizer.encode(video, chunk_frames=frames)
    assert torch.equal(codes[:, 0], indices.long())
    decoded = tokenizer.decode(codes, chunk_frames=frames)
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vidtok-fsq-causal-41616-262144", *OTHERS])
def test_frames_in_strips_and_a_few_at_a_time_are_the_frames_at_once(monkeypatch, name):
    tokenizer = small(name)
    video = torch.rand(1, 3, tokenizer.spec.chunk_frames, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)  # some begin as zeros
        latent = tokenizer.to_latent(video)
        decoded = tokenizer.from_latent(latent)
        monkeypatch.setattr(blocks, "STRIP", 1)
        monkeypatch.setattr(blocks, "CHUNK", 1)
        torch.testing.assert_close(tokenizer.to_latent(video), latent, atol=1e-5, rtol=0)
        torch.testing.assert_close(tokenizer.from_latent(latent), decoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vidtok-fsq-causal-488-4096", "vidtok-fsq-causal-41616-262144"])
def test_the_first_codes_of_release_1_0_decode_to_the_first_frames(name):
    tokenizer = small(name)
    codes = torch.randint(4096, (1, 1, 3, 2, 3), generator=torch.Generator().manual_seed(0))
    whole = tokenizer.decode(codes)
    assert whole.shape[2] == 9
    for positions in (1, 2):
        first = tokenizer.decode(codes[:, :, :positions])
        assert first.shape[2] == 4 * positions - 3
        torch.testing.assert_close(first, whole[:, :, : first.shape[2]], atol=1e-5, rtol=0)


def test_an_image_is_a_video_of_one_frame():
    tokenizer = small("vidtok-fsq-causal-488-32768")
    image = torch.rand(2, 3, 1, 40, 32)
    codes = tokenizer.encode(image)
    assert codes.shape == (2, 1, 1, 5, 4)
    assert tokenizer.decode(codes).shape == image.shape


def test_release_1_1_has_the_tensors_of_release_1_0_and_other_codes():
    old, new = small("vidtok-fsq-causal-488-32768"), small("vidtok-fsq-causal-488-32768-v1.1")
    new.load_state_dict(old.state_dict())
    video = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(old.encode(video), new.encode(video))


def test_the_published_variant_has_the_published_number_of_parameters():
    assert num_parameters(zoo.info("vidtok-fsq-causal-488-32768")) / 1e6 == pytest.approx(157.4, abs=0.06)
