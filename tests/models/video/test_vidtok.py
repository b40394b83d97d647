"""VidTok: the networks that no golden is of against diffusers', large frames in strips, and long clips in parts."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import zoo
from zoo.codes import load_codes
from zoo.facts import num_parameters
from zoo.memory import peak_bytes
from zoo.modalities import video as modality
from zoo.modalities.video import load_video, write_lossless_video
from zoo.models.video.vidtok import blocks
from zoo.models.video.vidtok import tokenizer as vidtok
from zoo.testing import small

WIDTH, NUM_BLOCKS, LEVELS = 16, 1, (8, 8, 8, 8)
LONG = ("vidtok-fsq-causal-488-32768-v1.1", "vidtok-fsq-causal-888-32768-v1.1")
OTHERS = ("vidtok-fsq-noncausal-488-262144", *LONG)


def lively(name: str) -> zoo.Tokenizer:
    """A small network of random weights, none of which is the zero that it is before training."""
    tokenizer, generator = small(name), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return tokenizer


def clip(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


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
        ("vidtok-fsq-causal-488-32768-v1.1", (1, 2, 2), (0, 1), (0, 1), 41),
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
    for chunk_frames in (5, 17, frames) if like in LONG else (frames,):
        codes = tokenizer.encode(video, chunk_frames=chunk_frames)
        assert torch.equal(codes[:, 0], indices.long())
        decoded = tokenizer.decode(codes, chunk_frames=chunk_frames)
        torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vidtok-fsq-causal-41616-262144", *OTHERS])
def test_frames_in_strips_and_a_few_at_a_time_are_the_frames_at_once(monkeypatch, name):
    tokenizer = lively(name).double()  # in float32, rounding differs with what is computed at once
    video = torch.rand(1, 3, 17, 96, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        latent = tokenizer.to_latent(video)
        decoded = tokenizer.from_latent(latent)
        monkeypatch.setattr(blocks, "STRIP", 1)
        monkeypatch.setattr(blocks, "CHUNK", 1)
        for options in ({}, {"chunk_frames": 8}) if name in LONG else ({},):
            torch.testing.assert_close(tokenizer.to_latent(video, **options), latent, atol=1e-5, rtol=0)
            torch.testing.assert_close(tokenizer.from_latent(latent, **options), decoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 16, 41])
@pytest.mark.parametrize("name", LONG)
def test_a_clip_of_release_1_1_has_one_result_whatever_is_computed_at_once(name, frames):
    tokenizer = lively(name)
    video = clip(2, 3, frames, 20, 16)
    codes = tokenizer.encode(video, chunk_frames=frames + 7)
    assert codes.shape[2] == 1 + -(-(frames - 1) // tokenizer.spec.downsample[0])
    assert codes.shape[2:] == tokenizer.spec.grid((frames, 20, 16))
    decoded = tokenizer.decode(codes, chunk_frames=frames + 7)
    for options in ({"chunk_frames": 1}, {"chunk_frames": 5}, {"chunk_frames": 9}, {"chunk_frames": 17}, {}):
        assert torch.equal(tokenizer.encode(video, **options), codes)
        torch.testing.assert_close(tokenizer.decode(codes, **options), decoded, atol=1e-5, rtol=0)


def test_a_frame_of_release_1_1_has_no_part_in_the_codes_before_it_and_some_in_all_after():
    tokenizer = lively("vidtok-fsq-causal-488-32768-v1.1")
    video = clip(1, 3, 41, 16, 16)
    changed = video.clone()
    changed[:, :, 17] = 1 - changed[:, :, 17]  # the first frame of the second part
    codes, others = tokenizer.encode(video), tokenizer.encode(changed)
    assert torch.equal(codes[:, :, :5], others[:, :, :5])
    assert not torch.equal(codes[:, :, 5], others[:, :, 5]) and not torch.equal(codes[:, :, 6], others[:, :, 6])


@pytest.mark.parametrize("name", LONG)
def test_clips_of_release_1_1_have_the_codes_in_a_batch_that_they_have_alone(name):
    tokenizer = lively(name)
    lengths = torch.tensor([41, 1, 18, 30])
    video = clip(4, 3, 41, 16, 16)
    codes = tokenizer.encode(video, lengths, chunk_frames=9)
    for i, (length, valid) in enumerate(zip(lengths.tolist(), tokenizer.code_lengths(lengths).tolist(), strict=True)):
        alone = tokenizer.encode(video[i : i + 1, :, :length])
        assert torch.equal(codes[i : i + 1, :, :valid], alone)
        assert not codes[i, :, valid:].any()


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_the_memory_of_a_long_clip_of_release_1_1_is_that_of_a_part_and_of_the_clip(monkeypatch, operation):
    tokenizer = small("vidtok-fsq-causal-488-32768-v1.1")
    monkeypatch.setattr(blocks, "enough", lambda parts, x: parts)  # all of them are counted

    def peak(frames: int, chunk_frames: int) -> int:
        size = (frames, 32, 32)
        codes = torch.zeros(1, 1, *tokenizer.spec.grid(size), dtype=torch.int64)
        x = torch.zeros(1, 3, *size) if operation == "encode" else codes
        return peak_bytes(partial(getattr(tokenizer, operation), chunk_frames=chunk_frames), x)

    added = 4 * 3 * 64 * 32 * 32
    assert peak(129, 17) - peak(65, 17) < 5 * added
    assert peak(129, 129) - peak(65, 65) > 15 * added


@pytest.mark.parametrize("frames", [0, 2.5, "a", None, True, -3], ids=str)
def test_parts_of_no_frames_are_refused(frames):
    tokenizer = small("vidtok-fsq-causal-488-32768-v1.1")
    for call, x in ((tokenizer.encode, clip(1, 3, 5, 16, 16)), (tokenizer.decode, torch.zeros(1, 1, 2, 2, 2).long())):
        with pytest.raises(zoo.InputError, match="expected chunk_frames as an integer of at least 1"):
            call(x, chunk_frames=frames)


def test_a_file_has_the_codes_and_the_frames_of_its_whole_clip_in_release_1_1(tmp_path, monkeypatch):
    def write_as_it_is(path, windows, rate, **_):  # H.264 makes much of a pixel that was rounded otherwise
        write_lossless_video(path, torch.cat([windows] if torch.is_tensor(windows) else list(windows), dim=1), rate)

    monkeypatch.setattr(modality, "write_video", write_as_it_is)
    tokenizer = lively("vidtok-fsq-causal-488-32768-v1.1")
    tokenizer.save_pretrained(tmp_path / "network")
    tokenizer.modality.write(tmp_path / "clip.mkv", clip(3, 41, 32, 32), tokenizer.spec, frame_rate=8.0)
    (encoded,) = zoo.encode_files(tokenizer, [tmp_path / "clip.mkv"], tmp_path / "codes.npz")
    video = tokenizer.preprocess(tmp_path / "clip.mkv")
    assert encoded.target is not None
    codes = load_codes(encoded.target).codes
    assert torch.equal(codes, tokenizer.encode(video))
    (decoded,) = zoo.decode_files([encoded.target], tmp_path / "decoded.mkv", name=tmp_path / "network")
    (made,) = zoo.reconstruct_files(tokenizer, [tmp_path / "clip.mkv"], tmp_path / "made.mkv")
    assert decoded.error is None and made.codes_shape == codes.shape[1:]
    whole = tokenizer.decode(codes, size=(41, 32, 32))[0]
    for path in (tmp_path / "decoded.mkv", tmp_path / "made.mkv"):
        assert (load_video(path) - whole).abs().max() < 0.6 / 255


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
