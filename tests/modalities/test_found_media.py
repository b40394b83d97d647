"""Media as people have them: what changes midway, what is stated wrongly, and what other programs write."""

import gzip
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from PIL import Image

import zoo
from tests.support.media import helix
from zoo import media, modalities
from zoo.errors import InputError, MediaError

CASES = Path(__file__).parents[2].parent / "shared" / "cases"  # beside the checkout, where present
CASE = pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
VIDEO_SPEC = zoo.info("cosmos-dv-4x8x8").spec
STRUCTURE_SPEC = zoo.info("foldseek-3di").spec


def case(name: str) -> Path:
    return CASES / name


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * 440 * time)] * channels, axis=1)


def encoded_video(path: Path, times: list[int], codec: str = "libx264", aspect: Fraction | None = None) -> Path:
    """A frame at each of `times` in milliseconds, in a container that states 25 frames a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time % 256, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def written(folder: Path, name: str, audio: np.ndarray, rate: int, **options: str) -> bytes:
    soundfile.write(folder / name, audio, rate, **options)
    return (folder / name).read_bytes()


# Sound


def test_every_part_of_an_mp3_has_its_own_rate(tmp_path):
    first = written(tmp_path, "a.mp3", tone(0.5, 44100), 44100)
    second = written(tmp_path, "b.mp3", tone(0.5, 22050), 22050)
    (tmp_path / "both.mp3").write_bytes(first + second)
    audio, rate = media.read_audio(tmp_path / "both.mp3")
    assert audio.shape[1] / rate == pytest.approx(1.0, abs=0.15)
    assert media.load_audio(tmp_path / "both.mp3", 24000, 1).shape[1] / 24000 == pytest.approx(1.0, abs=0.15)


def test_all_streams_of_a_chained_ogg_file_are_read(tmp_path):
    first = written(tmp_path, "a.ogg", tone(0.5, 24000), 24000)
    second = written(tmp_path, "b.ogg", tone(0.5, 16000, 2), 16000)
    (tmp_path / "both.ogg").write_bytes(first + second)
    audio, rate = media.read_audio(tmp_path / "both.ogg")
    assert (rate, audio.shape) == (24000, (1, 24000))
    assert audio[:, 12000:].abs().max() > 0.2
    part, rate = media.read_audio(tmp_path / "both.ogg", start=0.75, duration=0.1)
    assert (rate, part.shape) == (16000, (2, 1600))
    blocks = [block for block, _ in media.stream_audio(tmp_path / "both.ogg", 0.3)]
    assert torch.equal(torch.cat(blocks, dim=1), audio)


def test_a_codec_that_cannot_jump_is_read_whole_and_in_part(tmp_path):
    soundfile.write(tmp_path / "gsm.wav", tone(1.0, 8000)[:, 0], 8000, subtype="GSM610")
    whole, rate = media.read_audio(tmp_path / "gsm.wav")
    assert (rate, whole.shape[0]) == (8000, 1)
    assert torch.equal(media.read_audio(tmp_path / "gsm.wav", 0.5, 0.25)[0], whole[:, 4000:6000])


def test_a_wave_file_of_integers_stored_as_floats_is_warned_about_by_name(tmp_path):
    soundfile.write(tmp_path / "loud.wav", tone(0.1, 24000) * 30000, 24000, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"loud\.wav: peaks at .* divided by 32768"):
        media.load_audio(tmp_path / "loud.wav", 24000, 1)


def test_integers_in_memory_are_refused_with_the_divisor():
    with pytest.raises(InputError, match="got int16; divide by 32768"):
        media.load_audio(np.zeros(100, np.int16), 24000, 1, sample_rate=24000)


def test_more_channels_than_sound_has_are_refused(tmp_path):
    soundfile.write(tmp_path / "many.wav", np.zeros((10, 100)), 24000)
    with pytest.raises(MediaError, match=r"many\.wav: has 100 channels, expected at most 64"):
        media.read_audio(tmp_path / "many.wav")


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_absurd_rates_are_refused_with_the_accepted_range(tmp_path, rate):
    path = tmp_path / "absurd.wav"
    soundfile.write(path, tone(0.1, 24000), 24000)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(InputError, match="from 1000 to 4000000 Hz"):
        media.load_audio(path, 24000, 1)


def test_rates_that_share_no_factor_are_resampled_with_the_same_filter():
    audio = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    exact = torchaudio.functional.resample(audio.double(), 4001, 1999)
    ours = media.resample(audio, 4001, 1999)
    assert ours.shape == exact.shape
    assert 10 * torch.log10(exact.square().mean() / (ours - exact).square().mean()) > 90


@pytest.mark.parametrize("rate", [16001, 44101, 96001])
def test_a_sweep_comes_through_rates_that_share_no_factor(rate):
    def sweep(rate: int) -> torch.Tensor:
        time = torch.arange(rate, dtype=torch.float64) / rate
        return torch.sin(2 * torch.pi * (100 * time + 2000 * time.square()))[None]  # 100 to 4100 Hz

    ours, ideal = media.resample(sweep(rate).float(), rate, 24000)[:, 200:-200], sweep(24000)[:, 200:-200]
    assert 10 * torch.log10(ideal.square().mean() / (ours - ideal).square().mean()) > 50


def test_resampling_takes_little_memory_whatever_the_rates():
    program = (
        "import resource, torch, torchaudio\n"
        "from zoo.media import resample\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "resample(torch.zeros(1, 4000), 16000, 24000)\n"
        "before = peak()\n"
        "for rate in (16001, 44101, 96001): resample(torch.zeros(1, rate // 4), rate, 24000)\n"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 200_000  # kilobytes


# Video


def test_the_rate_of_a_video_is_the_mean_of_its_timestamps(tmp_path):
    path = encoded_video(tmp_path / "uneven.mkv", [*range(0, 400, 40), *range(400, 4000, 500)])
    frames = 10 + 8
    ((window, rate),) = media.read_video(path, 100)
    assert window.shape[1] == frames
    assert frames / rate == pytest.approx(4.4, abs=0.01)


def test_a_video_of_one_frame_without_a_rate_is_read_at_the_default(tmp_path):
    ((window, rate),) = media.read_video(encoded_video(tmp_path / "one.mkv", [0]), 16)
    assert (window.shape[1], rate) == (1, 25)


def test_frames_that_change_in_size_are_an_error_that_names_both(tmp_path):
    path = tmp_path / "grows.mkv"
    parts = []
    for size in ((64, 48), (128, 96)):
        with av.open(tmp_path / "part.h264", "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append((tmp_path / "part.h264").read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(MediaError, match=r"grows\.mkv: its frames change from 64x48 to 128x96 pixels after 3 frames"):
        list(media.read_video(path, 16))


def test_the_pixel_aspect_is_read_and_written_again(tmp_path):
    video = modalities.get("video")
    path = encoded_video(tmp_path / "wide.mp4", [0, 40, 80], aspect=Fraction(64, 45))
    signal = video.load(path, VIDEO_SPEC)
    assert signal.pixel_aspect == pytest.approx(64 / 45)
    video.write(
        tmp_path / "again.mkv",
        signal.values,
        VIDEO_SPEC,
        frame_rate=signal.frame_rate,
        pixel_aspect=signal.pixel_aspect,
    )
    assert video.load(tmp_path / "again.mkv", VIDEO_SPEC).pixel_aspect == pytest.approx(64 / 45)


def test_square_pixels_have_no_aspect(tmp_path):
    path = encoded_video(tmp_path / "square.mp4", [0, 40], aspect=Fraction(1, 1))
    assert modalities.get("video").load(path, VIDEO_SPEC).pixel_aspect is None


def test_a_video_of_floats_up_to_255_is_refused_with_a_hint():
    with pytest.raises(InputError, match=r"float video in .*divide by 255"):
        modalities.get("video").load(torch.full((3, 4, 16, 16), 200.0), VIDEO_SPEC)


# Images


def test_twelve_bits_reach_white(tmp_path):
    ramp = np.array([[0, 1024, 2048, 4095]], np.uint16)
    packed = bytes.fromhex("".join(f"{value:03x}" for value in ramp[0]))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    offset = 8 + len(packed)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "deep.tif").write_bytes(struct.pack("<2sHI", b"II", 42, offset) + packed + directory + bytes(4))
    assert media.read_image(tmp_path / "deep.tif")[0].tolist() == [[0, 64, 128, 255]]


def test_an_image_of_floats_up_to_255_is_refused_with_a_hint():
    with pytest.raises(InputError, match="divide by 255"):
        media.to_image_tensor(np.full((4, 4, 3), 200.0, np.float32))


def test_a_resized_image_that_would_take_gigabytes_is_refused(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "line.png")
    with pytest.raises(InputError, match=r"at most 178956970 pixels, got 256x15360000 from 1x60000"):
        media.load_image(tmp_path / "line.png", resolution=256)


def test_warnings_of_libraries_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (15, 10)).save(tmp_path / "big.png")
    with pytest.warns(Image.DecompressionBombWarning, match=r"big\.png: Image size"):
        media.read_image(tmp_path / "big.png")


def test_heic_that_pillow_cannot_read_says_what_reads_it(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(MediaError, match=r"photo\.heic: .*pillow-heif"):
        media.read_image(tmp_path / "photo.heic")


# Structures


def pdb_line(record: str, name: str, residue: str, number: int, x: float, location: str = " ", y: float = 0.0) -> str:
    return (
        f"{record:<6}{1:>5}  {name:<3}{location}{residue:>3} A{number:>4}    {x:8.3f}{y:8.3f}{0.0:8.3f}"
        f"{1:6.2f}{0:6.2f}          {name[0]:>2}  \n"
    )


def residue_of(record: str, residue: str, number: int, x: float, location: str = " ") -> str:
    names = ("N", "CA", "C", "O")
    return "".join(pdb_line(record, name, residue, number, x, location, k) for k, name in enumerate(names))


def test_alternate_locations_may_be_numbers(tmp_path):
    text = residue_of("ATOM", "ALA", 1, 0.0) + residue_of("ATOM", "ALA", 2, 3.8, "1")
    (tmp_path / "a.pdb").write_text(text + residue_of("ATOM", "ALA", 2, 9.0, "2"))
    assert media.read_structure(tmp_path / "a.pdb").coordinates[:, 1, 0].tolist() == pytest.approx([0.0, 3.8])


def test_a_ligand_after_ter_is_not_a_residue_and_a_modified_residue_before_it_is(tmp_path):
    chain = residue_of("ATOM", "ALA", 1, 0.0) + residue_of("HETATM", "MSE", 2, 3.8)
    (tmp_path / "a.pdb").write_text(chain + "TER\n" + residue_of("HETATM", "SAM", 301, 30.0))
    assert media.read_structure(tmp_path / "a.pdb").residue_names == ("ALA", "MSE")


def test_without_ter_what_is_not_bonded_to_the_chain_is_a_ligand(tmp_path):
    chain = residue_of("ATOM", "ALA", 1, 0.0) + residue_of("HETATM", "MSE", 2, 3.8)
    (tmp_path / "a.pdb").write_text(chain + residue_of("HETATM", "SAM", 301, 30.0))
    assert media.read_structure(tmp_path / "a.pdb").residue_names == ("ALA", "MSE")


def test_what_has_no_number_in_a_chain_of_mmcif_is_a_ligand(tmp_path):
    columns = "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id"
    columns += " pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z auth_seq_id auth_comp_id auth_asym_id auth_atom_id"
    rows = ""
    for group, residue, sequence, number, x in [
        ("ATOM", "ALA", "1", 1, 0.0),
        ("HETATM", "MSE", "2", 2, 3.8),
        ("HETATM", "SAM", ".", 301, 7.0),
    ]:
        for k, atom in enumerate(("N", "CA", "C", "O")):
            rows += f"{group} 1 {atom[0]} {atom} . {residue} A {sequence} ? {x} {k} 0 {number} {residue} A {atom}\n"
    header = "".join(f"_atom_site.{column}\n" for column in [*columns.split(), "pdbx_PDB_model_num"])
    rows = "".join(f"{row} 1\n" for row in rows.splitlines())
    (tmp_path / "a.cif").write_text(f"data_a\nloop_\n{header}{rows}#\n")
    assert media.read_structure(tmp_path / "a.cif").residue_names == ("ALA", "MSE")


def test_lines_that_end_after_the_coordinates_are_read(tmp_path):
    lines = (residue_of("ATOM", "ALA", 1, 0.0) + residue_of("ATOM", "GLY", 2, 3.8)).splitlines()
    (tmp_path / "a.pdb").write_text("\n".join(line[:54] for line in lines))
    with pytest.warns(UserWarning, match=r"a\.pdb: .*elements were guessed"):
        assert media.read_structure(tmp_path / "a.pdb").residue_names == ("ALA", "GLY")


def test_a_structure_of_ca_alone_is_refused_with_the_missing_atoms(tmp_path):
    (tmp_path / "a.pdb").write_text("".join(pdb_line("ATOM", "CA", "ALA", n, 3.8 * n) for n in range(1, 9)))
    with pytest.raises(InputError, match=r"a\.pdb: 8 of 8 residues lack one of N, C; expected"):
        modalities.get("structure").load(tmp_path / "a.pdb", STRUCTURE_SPEC)


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".bcif"])
def test_compressed_structures_are_read_and_found_in_folders(tmp_path, suffix):
    media.write_structure(tmp_path / f"chain{suffix}", helix(9))
    expected = media.read_structure(tmp_path / f"chain{suffix}").coordinates
    path = tmp_path / "folder" / f"chain{suffix}.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress((tmp_path / f"chain{suffix}").read_bytes()))
    assert media.media_files(path.parent, "structure") == [path]
    assert torch.equal(media.read_structure(path).coordinates.nan_to_num(), expected.nan_to_num())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MediaError, match=rf"chain\{suffix}\.gz: cannot be read as a structure"):
        media.read_structure(path)


# Folders


def test_linked_folders_are_followed_once_and_loops_are_not(tmp_path):
    for name in ("real/a.png", "data/sub/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    data = tmp_path / "data"
    for link, target in [("linked", "../real"), ("again", "../real"), ("sub/up", ".."), ("sub/top", "../..")]:
        os.symlink(target, data / link)
    assert media.media_files(data, "image") == [data / "again/a.png", data / "sub/b.png"]


# The shared cases


@CASE
@pytest.mark.parametrize(
    ("name", "samples", "rate"),
    [
        ("04_rate_changes/rate_changes_mono.mp3", 1.12, None),
        ("07_unseekable_codec/gsm610.wav", 4480 / 8000, 8000),
        ("08_chained_ogg/chained.ogg", 1.0, 24000),
        ("03_channels_change/a_channels.aac", 1.088, 48000),
    ],
)
def test_a_shared_recording_has_its_length(name, samples, rate):
    audio, given = media.read_audio(case(name))
    assert rate in (None, given)
    assert audio.shape[1] / given == pytest.approx(samples, abs=0.01)
    assert media.load_audio(case(name), 24000, 1).shape[1] / 24000 == pytest.approx(samples, abs=0.01)


@CASE
def test_shared_videos_have_their_rate():
    ((_, rate),) = media.read_video(case("05_vfr_mkv/vfr.mkv"), 100)
    assert rate == pytest.approx(4.1, abs=0.05)
    ((one, rate),) = media.read_video(case("01_no_frame_rate/a_oneframe.webm"), 100)
    assert (one.shape[1], rate) == (1, 25)
    with pytest.raises(MediaError, match="from 64x64 to 128x96"):
        list(media.read_video(case("02_size_changes/a_resize.webm"), 100))
    signal = modalities.get("video").load(case("18_anamorphic/anamorphic.mp4"), VIDEO_SPEC)
    assert signal.pixel_aspect == pytest.approx(64 / 45)


@CASE
@pytest.mark.filterwarnings("ignore:.*elements were guessed")
def test_shared_structures_have_their_residues():
    for name, residues in [
        ("09_numeric_altloc/1k6p_A40-60.pdb", 21),
        ("10_ligand_as_residue/base.pdb", 40),
        ("10_ligand_as_residue/sam_ligand.pdb", 40),
        ("11_short_pdb_lines/short_lines.pdb", 40),
    ]:
        assert len(media.read_structure(case(name)).coordinates) == residues
    with pytest.raises(InputError, match="40 of 40 residues lack one of N, C"):
        modalities.get("structure").load(case("22_ca_only/ca_only.pdb"), STRUCTURE_SPEC)


@CASE
def test_the_shared_image_of_twelve_bits_reaches_white():
    assert media.read_image(case("14_tiff_12_bits/ramp12.tif")).max() == 255
