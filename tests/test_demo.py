"""The demo: what it encodes, what it tells and what it leaves behind."""

import json
import time

import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

import zoo
from zoo.cli import app
from zoo.demo import Demo
from zoo.samples import samples


@pytest.fixture
def tiny(tiny_wetok, tiny_wavtokenizer):
    """The only variants that ship are tiny ones."""


def test_samples_fit_their_modality():
    assert len(samples("image")) >= 3
    for picture in samples("image").values():
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        assert image.size == (256, 256)
    for path in samples("audio").values():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert 2 < info.duration < 5
    with pytest.raises(zoo.InputError, match="no samples of 'smell'"):
        samples("smell")


def test_every_sample_goes_through_every_shipped_variant(tiny, tmp_path):
    work = Demo(out=tmp_path / "out")
    results = list(work)
    assert len(results) == len(work)
    pairs = {(result.variant, result.input) for result in results}
    assert pairs == {("tiny-wetok", name) for name in samples("image")} | {
        ("tiny-wavtokenizer", name) for name in samples("audio")
    }
    for result in results:
        assert result.error is None
        assert all(path.is_file() for path in result.files)
        assert Image.open(result.files[0]).width == 1088
        if result.modality == "audio":
            lengths = {soundfile.info(path).frames for path in result.files[1:]}
            assert lengths == {soundfile.info(samples("audio")[result.input]).frames}
    written = {path for path in work.folder.rglob("*") if path.is_file()}
    assert written == {path for result in results for path in result.files}


def test_own_files_are_taken_besides_the_samples(tiny, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (300, 400), "teal").save(own / "lake.png")
    (own / "broken.png").write_bytes(b"nothing")
    soundfile.write(own / "long.wav", [0.0, 0.1] * 16000 * 6, 16000)
    result = CliRunner().invoke(app, ["demo", str(own), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 1
    message, count = result.stderr.splitlines()
    assert "broken" in message
    assert count == "1 of 8 failed"
    entries = {entry["input"]: entry for entry in json.loads(result.stdout)["results"]}
    assert {"lake", "lake-2", "long"} < set(entries)
    assert entries["lake-2"]["tokens"] == entries["lake"]["tokens"]
    assert entries["long"]["tokens"] == 10 * 75


def test_only_images_and_audio_are_taken(tiny, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.touch()
    (tmp_path / "empty").mkdir()
    for path, message in (
        (clip, "is video"),
        (tmp_path / "empty", "neither images nor audio"),
        ("nope", "no such file"),
    ):
        result = CliRunner().invoke(app, ["demo", str(path), "--out", str(tmp_path / "out")])
        assert result.exit_code == 1
        assert message in result.stderr


def test_a_second_demo_has_a_folder_of_its_own_and_a_named_one_is_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("Pictures and sound are in zoo-demo\n")
    pictures, sounds = (line.split() for line in result.stdout.splitlines() if line.startswith("variant"))
    assert pictures == ["variant", "input", "tokens", "bits", "ratio", "PSNR", "(dB)", "SSIM", "seconds"]
    assert sounds == ["variant", "input", "tokens", "bits", "ratio", "Mel", "distance", "STOI", "seconds"]
    assert str(Demo().folder) == "zoo-demo-2"
    assert all(isinstance(result.error, zoo.MediaError) for result in Demo(out="zoo-demo"))
    assert next(iter(Demo(out="zoo-demo", overwrite=True))).error is None


def test_the_demo_of_the_shipped_weights_is_quick_and_close_to_the_originals(tmp_path):
    start = time.process_time()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert time.process_time() - start < 60
    entries = json.loads(result.stdout)["results"]
    assert {entry["variant"] for entry in entries} == {"wetok-nano", "wavtokenizer-nano"}
    for entry in entries:
        if "psnr" in entry:
            assert entry["psnr"] > 18
            assert entry["ssim"] > 0.5
        else:
            assert entry["stoi"] > 0.5
