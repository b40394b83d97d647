"""The demo: what it encodes, what it prints and what it writes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from typer.testing import CliRunner

import zoo
from zoo import media
from zoo.cli import app
from zoo.demo import Demo
from zoo.demo.samples import samples
from zoo.metrics import METRICS, psnr

ALPHA = 1  # of a residue's atoms
# What each shipped variant reaches on every sample, at least or at most as its metric has it.
BOUNDS = {
    "wetok-nano": {"psnr": 20, "ssim": 0.6},
    "wavtokenizer-nano": {"stoi": 0.5},
    "speechtokenizer-nano": {"stoi": 0.6},
    "mimi-nano": {"stoi": 0.5},
    "fqgan-nano": {"psnr": 16, "ssim": 0.5},
    "one-d-piece-nano": {"psnr": 17, "ssim": 0.5},
    "cosmos-dv-nano": {"psnr": 22, "ssim": 0.5},
    "dplm2-nano": {"ca_rmsd": 5},
}
OF_MUSIC = {"mel_distance": 2.2}  # in place of STOI, which measures speech
SIZES = {"wetok-nano": 8_000_000}  # bytes of weights at most, where they are more than 4 MB


@pytest.fixture
def tiny(tiny_wetok, tiny_one_d_piece, tiny_wavtokenizer, tiny_cosmos, tiny_dplm2):
    """The only variants that ship and decode are tiny ones."""


def test_every_sample_goes_through_every_shipped_variant(tiny, tmp_path):
    work = Demo(out=tmp_path / "out")
    results = list(work)
    assert len(results) == len(work)
    variants = {
        "image": ["tiny-wetok", "tiny-one-d-piece"],
        "audio": ["tiny-wavtokenizer"],
        "video": ["tiny-cosmos"],
        "structure": ["tiny-dplm2"],
    }
    assert {(result.modality, result.variant, result.input) for result in results} == {
        (modality, name, sample) for modality in variants for name in variants[modality] for sample in samples(modality)
    }
    for result in results:
        assert result.error is None
        assert all(path.is_file() for path in result.files)
        if result.modality == "audio":
            lengths = {soundfile.info(path).frames for path in result.files}
            assert lengths == {soundfile.info(samples("audio")[result.input]).frames}
        elif result.modality == "video":
            shapes = [tuple(media.load_video(path).shape) for path in result.files]
            assert shapes == [(3, 33, 128, 128)] * 2
    written = {path for path in work.folder.rglob("*") if path.is_file()}
    assert written == {path for result in results for path in result.files} | {work.page, work.poster}


def test_one_token_and_more_of_tail_drop_are_images_of_their_own(tiny_one_d_piece, tmp_path):
    list(Demo(out=tmp_path))
    codes = tiny_one_d_piece.encode(tiny_one_d_piece.preprocess(samples("image")["lake"]))
    for count, mark in ((1, ".1-token"), (4, ".4-tokens"), (16, ".16-tokens"), (20, "")):
        found = media.load_image(tmp_path / "tiny-one-d-piece" / f"lake{mark}.png")
        assert (found - tiny_one_d_piece.decode(codes[..., :count])[0]).abs().max() < 1 / 255


def test_a_residual_codec_is_heard_with_1_2_4_and_all_codebooks(tiny_residual, tmp_path):
    results = list(Demo(out=tmp_path))
    assert {result.variant for result in results} == {"tiny-residual"}
    for result in results:
        assert result.error is None
        marks = [".original", ".1-codebook", ".2-codebooks", ".4-codebooks", ""]
        assert [path.name for path in result.files] == [f"{result.input}{mark}.wav" for mark in marks]
        codes = tiny_residual.encode(tiny_residual.preprocess(samples("audio")[result.input]))
        assert result.figures.tokens == codes.numel() and codes.shape[1] == 5
        for path, count in zip(result.files[1:], (1, 2, 4, 5), strict=True):
            heard, _ = soundfile.read(path, dtype="float32")
            decoded = tiny_residual.decode(codes[:, :count], size=len(heard))[0, 0].clamp(-1, 1)
            assert np.abs(heard - decoded.numpy()).max() < 1e-4


def test_a_protein_lies_on_its_original(tiny_dplm2, tmp_path):
    (result,) = Demo(out=tmp_path)
    original, reconstruction = (media.read_structure(path).coordinates[:, ALPHA] for path in result.files)
    rmsd = float((original - reconstruction).square().sum(dim=-1).mean().sqrt())
    assert rmsd == pytest.approx(result.figures.quality["ca_rmsd"], abs=0.01)


def test_own_files_are_taken_besides_the_samples(tiny_wetok, tiny_wavtokenizer, tiny_cosmos, tiny_dplm2, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (300, 400), "teal").save(own / "lake.png")
    (own / "broken.png").write_bytes(b"nothing")
    soundfile.write(own / "long.wav", [0.0, 0.1] * 16000 * 6, 16000)
    media.write_video(own / "wide.mp4", torch.rand(3, 40, 144, 200), 30)
    chain = torch.arange(300.0)[:, None, None] * 3 + torch.rand(300, 5, 3)
    media.write_structure(own / "chain.cif", chain, chain="A")
    result = CliRunner().invoke(app, ["demo", str(own), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 1
    message, count = result.stderr.splitlines()
    assert "broken" in message
    assert count == "1 of 13 failed"
    entries = {(entry["variant"], entry["input"]): entry for entry in json.loads(result.stdout)["results"]}
    assert entries["tiny-wetok", "lake-2"]["tokens"] == entries["tiny-wetok", "lake"]["tokens"]
    assert entries["tiny-wavtokenizer", "long"]["tokens"] == 10 * 75
    assert entries["tiny-dplm2", "chain"]["tokens"] == 256
    ((clip, frame_rate),) = media.read_video(entries["tiny-cosmos", "wide"]["files"][1], 100)
    assert (tuple(clip.shape), frame_rate) == ((3, 33, 128, 128), 30)


def test_a_chain_is_chosen_by_its_id(tiny_dplm2, tmp_path):
    for chain, message in (("A", "1 of 2 failed"), ("B", "")):
        media.write_structure(tmp_path / "own.cif", torch.rand(20, 5, 3) * 30, chain="B", overwrite=True)
        command = ["demo", str(tmp_path / "own.cif"), "--chain", chain, "--out", str(tmp_path / chain)]
        result = CliRunner().invoke(app, command)
        assert message in result.stderr
        assert (tmp_path / chain / "tiny-dplm2" / "own.pdb").exists() == (chain == "B")
        assert (tmp_path / chain / "tiny-dplm2" / "globin.pdb").exists()


def test_only_images_audio_video_and_structures_are_taken(tiny, tmp_path):
    text = tmp_path / "text.txt"
    text.touch()
    (tmp_path / "empty").mkdir()
    for path, message in (
        (text, "expected a suffix among"),
        (tmp_path / "empty", "holds no image or audio or video or structure"),
        ("nope", "no such file"),
    ):
        result = CliRunner().invoke(app, ["demo", str(path), "--out", str(tmp_path / "out")])
        assert result.exit_code == 1
        assert message in result.stderr


def test_a_second_demo_has_a_folder_of_its_own_and_a_named_one_is_kept(tiny_dplm2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    opening, *_, last = result.stdout.splitlines()
    assert opening.startswith("zoo turns images, sound, video and proteins into integers")
    assert last == "Open zoo-demo/index.html in a browser: it shows and plays everything."
    (header,) = [line.split() for line in result.stdout.splitlines() if line.startswith("input")]
    assert header == ["input", "tokenizer", "license", "of", "the", "weights", "tokens", "bytes", "size", "closeness"]
    assert str(Demo().folder) == "zoo-demo-2"
    assert all(isinstance(result.error, zoo.MediaError) for result in Demo(out="zoo-demo"))
    assert next(iter(Demo(out="zoo-demo", overwrite=True))).error is None


def test_the_demo_of_the_shipped_weights_is_quick_and_close_to_the_originals(tmp_path):
    start = time.process_time()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""  # no warnings of licenses, which are a column
    assert time.process_time() - start < 30  # with torch imported: about 10 where nothing else runs
    entries = json.loads(result.stdout)["results"]
    shipped = {name for name in zoo.list_tokenizers() if zoo.info(name).shipped is not None}
    decoding = {name for name in shipped if zoo.info(name).builder.encode_only is None}
    assert {entry["variant"] for entry in entries} == decoding
    for entry in entries:
        metrics = METRICS[zoo.info(entry["variant"]).spec.modality]
        bounds = OF_MUSIC if entry["input"] == "strings" else BOUNDS.get(entry["variant"], {})
        for name, bound in bounds.items():
            assert entry[name] > bound if metrics[name].higher_is_better else entry[name] < bound


def test_shipped_weights_are_small():
    shipped = [*(Path(zoo.__file__).parent / "weights").glob("*.safetensors")]
    assert {path.stem for path in shipped} >= {name for name in zoo.list_tokenizers() if name.endswith("-nano")}
    assert all(path.stat().st_size <= SIZES.get(path.stem, 4_000_000) for path in shipped)
    assert sum(path.stat().st_size for path in shipped) <= 32_000_000


def test_every_doubling_of_one_d_piece_nanos_tokens_brings_the_samples_nearer():
    tokenizer = zoo.load("one-d-piece-nano")
    images = torch.cat([tokenizer.preprocess(image) for image in samples("image").values()])
    codes = tokenizer.encode(images)
    values = [float(psnr(tokenizer.decode(codes, num_tokens=2**power), images).mean()) for power in range(9)]
    assert values == sorted(values), values


def test_a_file_of_a_kind_that_no_shipped_variant_decodes_is_refused(tiny_wetok, tmp_path):
    path = tmp_path / "chain.pdb"
    path.write_text("")
    with pytest.raises(zoo.InputError, match=r"chain.pdb.*the demo takes image"):
        Demo([path], out=tmp_path / "out")
