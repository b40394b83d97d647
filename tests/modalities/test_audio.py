"""Sound and video in files and in memory."""

import math
from fractions import Fraction

import av
import pytest
import soundfile
import torch
import torchaudio

from zoo import media
from zoo.errors import InputError, MediaError


def tone(seconds: float = 2.0, sample_rate: int = 24000, channels: int = 1) -> torch.Tensor:
    """float `[channels, samples]`: a rising tone of another pitch in each channel."""
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    return torch.stack([0.5 * torch.sin(2 * math.pi * (200 + 100 * k + 300 * time) * time) for k in range(channels)])


def gradient(height: int, width: int) -> torch.Tensor:
    """float `[3, H, W]` in [0, 1]; no two corners alike."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


# Reading sound


@pytest.mark.parametrize("sample_rate", [8000, 24000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_lossless_sound_is_read_back_to_half_a_step(tmp_path, suffix, channels, sample_rate):
    audio = tone(0.5, sample_rate, channels)
    media.write_audio(tmp_path / f"out.{suffix}", audio, sample_rate)
    read, rate = media.read_audio(tmp_path / f"out.{suffix}")
    assert (rate, read.dtype, read.shape) == (sample_rate, torch.float32, audio.shape)
    assert (read - audio).abs().max() <= 0.5 / 32768 + 1e-7


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_sample_is_read(tmp_path, subtype):
    audio = tone(0.1)
    soundfile.write(tmp_path / "in.wav", audio.T.numpy(), 24000, subtype)
    assert (media.read_audio(tmp_path / "in.wav")[0] - audio).abs().max() < 0.02


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_compressed_sound_keeps_its_length(tmp_path, suffix):
    audio = tone(channels=2)
    soundfile.write(tmp_path / f"in.{suffix}", audio.T.numpy(), 24000)
    read, rate = media.read_audio(tmp_path / f"in.{suffix}")
    assert rate == 24000
    assert read.shape == audio.shape
    assert (read - audio).abs().mean() < 0.02


def write_with_ffmpeg(path, codec: str, audio: torch.Tensor, options: dict[str, str] | None = None) -> None:
    layout = {1: "mono", 2: "stereo"}[len(audio)]
    with av.open(path, "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=24000, layout=layout)
        frame = av.AudioFrame.from_ndarray(audio.numpy(), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 24000, 0, Fraction(1, 24000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", ["m4a", "aac", "mp4", "mkv"])
def test_what_libsndfile_cannot_read_is_read_with_ffmpeg(tmp_path, suffix):
    audio = tone(channels=2)
    write_with_ffmpeg(tmp_path / f"in.{suffix}", "aac", audio)
    read, rate = media.read_audio(tmp_path / f"in.{suffix}")
    lead = 1024 if suffix == "aac" else 0  # a bare AAC stream cannot say that its first block is the encoder's delay
    assert rate == 24000
    assert 0 <= read.shape[1] - audio.shape[1] - lead < 1024
    assert (read[:, lead : lead + audio.shape[1]] - audio).abs().mean() < 0.02


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_part_is_what_lies_there_in_the_whole(tmp_path, suffix):
    path = tmp_path / f"in.{suffix}"
    if suffix == "m4a":
        write_with_ffmpeg(path, "aac", tone(channels=2))
    else:
        soundfile.write(path, tone(channels=2).T.numpy(), 24000)
    whole, _ = media.read_audio(path)
    for start, duration in [(0.5, None), (None, 0.25), (0.1234, 0.5), (1.3, 0.001), (1.9, 100)]:
        part, _ = media.read_audio(path, start, duration)
        first = round((start or 0) * 24000)
        expected = whole[:, first : None if duration is None else first + round(duration * 24000)]
        assert part.shape == expected.shape
        assert (part - expected).abs().max() < 1e-6
    for start in (10, -1, math.nan):
        with pytest.raises(InputError, match="expected"):
            media.read_audio(path, start=start)
    with pytest.raises(InputError, match="duration > 0 seconds, got 0 and 0"):
        media.read_audio(path, start=0, duration=0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "m4a"])
def test_sound_cut_short_is_damaged(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "m4a":
        write_with_ffmpeg(path, "aac", tone(channels=2), options={"movflags": "faststart"})
    else:
        soundfile.write(path, tone(channels=2).T.numpy(), 24000)
    whole = path.read_bytes()
    for part in (0.0, 0.001, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(MediaError, match=rf"cut\.{suffix}: (cut short|damaged|cannot be read|holds no sound)"):
            media.read_audio(path)


def test_an_ogg_file_cut_short_gives_what_it_holds(tmp_path):
    soundfile.write(tmp_path / "in.ogg", tone(10.0).T.numpy(), 24000)
    whole = (tmp_path / "in.ogg").read_bytes()
    (tmp_path / "in.ogg").write_bytes(whole[: len(whole) // 2])
    assert 0 < media.read_audio(tmp_path / "in.ogg")[0].shape[1] < 240_000


def test_a_wave_file_from_a_pipe_states_no_length_and_is_read(tmp_path):
    path = tmp_path / "pipe.wav"
    media.write_audio(path, tone(0.5), 24000)
    content = bytearray(path.read_bytes())
    size = content.index(b"data") + 4
    for unknown in (0xFFFFFFFF, 0x7FFFFFFF):
        content[size : size + 4] = unknown.to_bytes(4, "little")
        path.write_bytes(content)
        assert media.read_audio(path)[0].shape == (1, 12000)


def test_a_flac_file_that_states_no_length_is_read(tmp_path):
    path = tmp_path / "pipe.flac"
    media.write_audio(path, tone(0.5), 24000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the last 36 bits of these bytes count the samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert media.read_audio(path)[0].shape == (1, 12000)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)])
def test_an_mp3_of_varying_rate_without_a_length_is_read_whole(tmp_path, tag):
    path = tmp_path / "in.mp3"
    audio = torch.cat([torch.zeros(1, 24000), 0.1 * torch.randn(1, 24000)], dim=1)
    soundfile.write(path, audio.T.numpy(), 24000, bitrate_mode="VARIABLE")
    content = path.read_bytes()
    path.write_bytes(tag + content)
    assert media.read_audio(path)[0].shape == audio.shape
    first_frame = content.index(content[:2], 2)  # the one that holds the length
    path.write_bytes(tag + content[first_frame:])
    assert media.read_audio(path)[0].shape[1] >= audio.shape[1]


@pytest.mark.parametrize("content", [b"", b"not a sound", bytes(range(256)) * 20])
@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "raw"])
def test_what_is_no_sound_is_named(tmp_path, content, suffix):
    (tmp_path / f"foreign.{suffix}").write_bytes(content)
    with pytest.raises(MediaError, match=rf"foreign\.{suffix}: (cannot be read as sound|holds no sound)"):
        media.read_audio(tmp_path / f"foreign.{suffix}")


def test_a_missing_sound_and_a_silent_video_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"none\.wav: cannot be read as sound: No such file"):
        media.read_audio(tmp_path / "none.wav")
    media.write_video(tmp_path / "silent.mp4", torch.zeros(3, 4, 16, 16), fps=10)
    with pytest.raises(MediaError, match=r"silent\.mp4: holds no sound"):
        media.read_audio(tmp_path / "silent.mp4")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.5, 60])
def test_streamed_blocks_join_to_the_whole(tmp_path, suffix, seconds):
    path = tmp_path / f"in.{suffix}"
    if suffix == "m4a":
        write_with_ffmpeg(path, "aac", tone(channels=2))
    else:
        soundfile.write(path, tone(channels=2).T.numpy(), 24000)
    blocks = list(media.stream_audio(path, seconds))
    assert {rate for _, rate in blocks} == {24000}
    assert {block.shape[1] for block, _ in blocks[:-1]} <= {round(seconds * 24000)}
    assert 0 < blocks[-1][0].shape[1] <= round(seconds * 24000)
    assert torch.equal(torch.cat([block for block, _ in blocks], dim=1), media.read_audio(path)[0])


def test_blocks_of_nothing_are_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="more than 0 seconds, got 0"):
        media.stream_audio(tmp_path / "any.wav", 0)


# Writing sound


def test_sound_beyond_the_range_is_clipped(tmp_path):
    media.write_audio(tmp_path / "out.wav", torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]), 8000)
    assert soundfile.read(tmp_path / "out.wav", dtype="int16")[0].tolist() == [-32768, -32768, 0, 32767, 32767]


def test_sound_is_written_with_sixteen_bits(tmp_path):
    for suffix in ("wav", "flac"):
        media.write_audio(tmp_path / f"out.{suffix}", tone(0.1), 24000)
        assert soundfile.info(tmp_path / f"out.{suffix}").subtype == "PCM_16"


def test_an_existing_sound_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "out.wav"
    media.write_audio(path, torch.zeros(1, 10), 8000)
    with pytest.raises(MediaError, match=r"out\.wav: exists already"):
        media.write_audio(path, torch.zeros(1, 20), 8000)
    media.write_audio(path, torch.zeros(1, 20), 8000, overwrite=True)
    assert media.read_audio(path)[0].shape == (1, 20)


def test_sound_that_cannot_be_written_is_refused(tmp_path):
    audio = torch.zeros(1, 100)
    for path, bad, rate, message in [
        ("out.mp3", audio, 8000, r"expected a file ending in \.wav or \.flac, got '\.mp3'"),
        ("out.wav", audio[0], 8000, r"expected audio as \[channels, samples\], got \[100\]"),
        ("out.wav", audio[None], 8000, r"got \[1, 1, 100\]"),
        ("out.wav", audio.T, 8000, r"got \[100, 1\]; transpose it"),
        ("out.wav", audio.short(), 8000, "expected audio of floats in .* got torch.int16"),
        ("out.wav", audio / 0, 8000, "not finite"),
        ("out.wav", audio, 8000.5, "expected a sample rate as a positive integer in Hz, got 8000.5"),
        ("out.flac", audio.repeat(9, 1), 8000, "9 channels at 8000 Hz cannot be written"),
    ]:
        with pytest.raises(InputError, match=message):
            media.write_audio(tmp_path / path, bad, rate)
    assert list(tmp_path.iterdir()) == []


# Rates and channels


@pytest.mark.parametrize("from_rate", [8000, 16000, 44100, 48000])
def test_resampling_is_torchaudios(from_rate):
    audio = tone(0.2, from_rate, 2)
    resampled = media.resample(audio, from_rate, 24000)
    assert resampled.shape == (2, math.ceil(audio.shape[1] * 24000 / from_rate))
    assert torch.equal(resampled, torchaudio.transforms.Resample(from_rate, 24000)(audio))


def test_a_long_recording_has_all_its_samples():
    samples = 2**24 + 12345  # which float32 cannot count
    resampled = media.resample(torch.zeros(1, samples), 48000, 24000)
    assert resampled.shape == (1, math.ceil(samples / 2))


def test_a_rate_that_is_right_changes_nothing():
    audio = tone(0.1)
    assert media.resample(audio, 24000, 24000) is audio


def test_stereo_is_averaged_and_mono_repeated():
    stereo = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert media.to_channels(stereo, 1).tolist() == [[0.5, 0.5]]
    assert media.to_channels(stereo, 2) is stereo
    assert media.to_channels(stereo[:1], 2).tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert media.to_channels(stereo[None], 1).shape == (1, 1, 2)
    with pytest.raises(InputError, match="expected audio of 1 or 6 channels, got 2"):
        media.to_channels(stereo, 6)


def test_every_source_of_sound_is_loaded_alike(tmp_path):
    audio = (tone(0.2, 16000, 2) * 32768).round() / 32768
    media.write_audio(tmp_path / "in.wav", audio, 16000)
    expected = media.resample(audio.mean(dim=0, keepdim=True), 16000, 24000)
    assert torch.equal(media.load_audio(tmp_path / "in.wav", 24000, 1), expected)
    assert torch.equal(media.load_audio(str(tmp_path / "in.wav"), 24000, 1, sample_rate=16000), expected)
    assert torch.equal(media.load_audio(audio, 24000, 1, sample_rate=16000), expected)
    assert torch.equal(media.load_audio(audio.double().numpy(), 24000, 1, sample_rate=16000), expected)
    assert torch.equal(media.load_audio(audio[0], 16000, 2, sample_rate=16000), audio[:1].expand(2, -1))


def test_sources_of_sound_that_do_not_fit_are_refused(tmp_path):
    audio = tone(0.1, 16000)
    media.write_audio(tmp_path / "in.wav", audio, 16000)
    for source, options, message in [
        (audio, {}, "expected sample_rate= with a Tensor, got none"),
        (audio, {"sample_rate": 16000, "resample": False}, "expected 24000 Hz, got 16000 Hz; resample=True resamples"),
        (tmp_path / "in.wav", {"resample": False}, "expected 24000 Hz, got 16000 Hz"),
        (tmp_path / "in.wav", {"sample_rate": 8000}, r"in\.wav: expected 8000 Hz, got 16000 Hz"),
        ((audio * 32767).short().numpy(), {"sample_rate": 16000}, "expected audio of floats in .* got int16"),
        (audio.T.numpy(), {"sample_rate": 16000}, "transpose it"),
        ([0.0], {"sample_rate": 16000}, "got list"),
    ]:
        with pytest.raises(InputError, match=message):
            media.load_audio(source, 24000, 1, **options)


# Video


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_video_is_read_back_in_windows(tmp_path, suffix, size):
    video = torch.stack([gradient(*size) * k / 10 for k in range(11)], dim=1)  # [3, 11, H, W]
    media.write_video(tmp_path / f"out.{suffix}", video, fps=12.5)
    windows = list(media.read_video(tmp_path / f"out.{suffix}", 4))
    assert [window.shape for window, _ in windows] == [(3, 4, *size), (3, 4, *size), (3, 3, *size)]
    assert {fps for _, fps in windows} == {12.5}
    read = torch.cat([window for window, _ in windows], dim=1)
    assert read.dtype == torch.uint8
    assert (read / 255 - video).abs().mean() < 0.02


def test_a_video_is_turned_as_the_file_says(tmp_path):
    path = tmp_path / "turned.mp4"
    video = torch.zeros(3, 2, 32, 64)
    video[:, :, :16, :32] = 1  # the upper left is white
    media.write_video(path, video, fps=10)
    content = path.read_bytes()
    upright, clockwise = (
        b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
        for matrix in ([65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30])
    )
    track = content.index(b"tkhd")
    path.write_bytes(content[:track] + content[track:].replace(upright, clockwise, 1))
    ((window, _),) = media.read_video(path, 2)
    assert window.shape == (3, 2, 64, 32)
    white = (window > 128).all(dim=(0, 1))
    assert white[:32, 16:].float().mean() > 0.95  # the upper right
    assert white.float().mean() < 0.3


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.95])
def test_a_video_cut_short_is_damaged(tmp_path, part):
    path = tmp_path / "cut.mp4"
    generator = torch.Generator().manual_seed(0)
    media.write_video(path, torch.rand(3, 20, 48, 64, generator=generator), fps=10)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=r"cut\.mp4: (cannot be read as video|holds a damaged frame)"):
        list(media.read_video(path, 4))


def test_a_sound_has_no_video(tmp_path):
    media.write_audio(tmp_path / "in.wav", tone(0.1), 24000)
    with pytest.raises(MediaError, match=r"in\.wav: holds no video"):
        next(media.read_video(tmp_path / "in.wav", 4))


def test_video_that_cannot_be_written_is_refused(tmp_path):
    video = torch.zeros(3, 2, 16, 16)
    for path, bad, fps, message in [
        ("out.gif", video, 10, r"expected a file ending in \.mp4, \.mkv or \.mov, got '\.gif'"),
        ("out.mp4", video[:, 0], 10, r"expected video as \[3, frames, height, width\], got \[3, 16, 16\]"),
        ("out.mp4", video.long(), 10, "got torch.int64"),
        ("out.mp4", video / 0, 10, "not finite"),
        ("out.mp4", video, 0, "expected fps from 0.01 to 1000, got 0"),
    ]:
        with pytest.raises(InputError, match=message):
            media.write_video(tmp_path / path, bad, fps)
    with pytest.raises(InputError, match="at least 1 frame, got 0"):
        media.read_video(tmp_path / "any.mp4", 0)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_video_is_replaced_only_on_request(tmp_path):
    media.write_video(tmp_path / "out.mp4", torch.zeros(3, 2, 16, 16), fps=10)
    with pytest.raises(MediaError, match=r"out\.mp4: exists already"):
        media.write_video(tmp_path / "out.mp4", torch.zeros(3, 2, 16, 16), fps=10)
