"""The `zoo` command: what it prints, writes and refuses, and with which exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

import zoo
from tests.support.cli import error_line, run
from tests.support.paths import ROOT
from tests.support.plain_wetok import register_small, write_golden
from zoo.catalog import LIST_END, LIST_START
from zoo.checkpoints import read_metadata
from zoo.cli import app
from zoo.codes import load_codes, save_codes
from zoo.demo.samples import FOLDER

README = ROOT / "README.md"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two pictures of one size and, in a subfolder, one of another."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("a.png", (24, 20)), ("b.png", (24, 20)), ("more/c.png", (17, 33))):
        Image.fromarray(random.integers(256, size=(*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def sound(tmp_path) -> Path:
    """A second of noise at 16 kHz."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    return path


def damage(folder: Path) -> None:
    """Cut the second of the folder's pictures short."""
    path = folder / "b.png"
    path.write_bytes(path.read_bytes()[:100])


# zoo, zoo list, zoo info


def test_help_and_version_do_without_torch():
    program = "import sys, zoo.cli as c; c.app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.endswith("False\n")
    for command in [
        "list",
        "info",
        "encode",
        "decode",
        "reconstruct",
        "parity",
        "pull",
        "push",
        "train",
        "export",
        "demo",
    ]:
        assert f"\n  {command} " in output
    assert run("--version").stdout == f"zoo {zoo.__version__}\n"


@pytest.mark.parametrize("command", [["list"], ["list", "--modality", "video", "--json"], ["info", "wetok"]])
def test_the_table_and_the_facts_do_without_torch(command):
    program = f"import sys, zoo.cli as c; c.app({command}, standalone_mode=False); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.endswith("False\n") and len(output) > 500


def test_list_names_every_tokenizer_and_takes_filters():
    names = zoo.list_tokenizers()
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == names
    listed = json.loads(run("list", "--modality", "audio", "--quantizer", "vq", "--json").stdout)
    assert [entry["name"] for entry in listed] == zoo.list_tokenizers(modality="audio", quantizer="vq")
    large = next(entry for entry in listed if entry["name"] == "wavtokenizer-large-speech-320-v2")
    assert large["tokens"] == 75
    assert large["bits"] == 900
    assert large["parameters"] == 71750146
    assert large["aliases"] == ["wavtokenizer"]


def test_readme_has_the_table_that_list_prints():
    text = README.read_text(encoding="utf-8")
    table = text[text.index(LIST_START) : text.index(LIST_END) + len(LIST_END)]
    assert run("list", "--markdown").stdout == table + "\n"


def test_list_refuses_a_modality_that_no_tokenizer_has():
    assert "no tokenizer has modality 'smell'; there are audio, image" in error_line(
        run("list", "--modality", "smell", status=1)
    )


def test_info_tells_spec_config_source_and_figures():
    described = json.loads(run("info", "wetok", "--json").stdout)
    assert described["name"] == "wetok-general-24"
    assert described["codebook_sizes"] == [256] * 8
    assert described["source_file"]["repo"] == "GrayShine/WeTok"
    assert described["config"]["dim"] == 64
    assert described["figures"] == {"zero-shot rFID, ImageNet 256x256": 0.12}
    text = run("info", "wetok").stdout
    assert "https://arxiv.org/abs/2508.05599" in text
    assert "8,192" in text


def test_an_error_is_one_line_and_its_traceback_shown_on_demand():
    message = error_line(run("info", "wetk", status=1))
    assert message.startswith("error: unknown tokenizer 'wetk'; did you mean 'wetok'")
    result = CliRunner().invoke(app, ["-v", "info", "wetk"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith(message + "\n")


@pytest.mark.parametrize("arguments", [["nope"], ["info"], ["encode", "wetok", "x"], ["list", "--json", "--markdown"]])
def test_wrong_usage_has_exit_status_2(arguments):
    run(*arguments, status=2)


# zoo encode, zoo decode


def test_a_folder_goes_to_codes_and_back_in_its_own_layout(tiny_wetok, pictures, tmp_path):
    run("encode", "tiny-wetok", pictures, "--out", tmp_path / "codes")
    run("decode", tmp_path / "codes", "--out", tmp_path / "decoded")
    for name in ("a", "b", "more/c"):
        original = tiny_wetok.preprocess(pictures / f"{name}.png")
        file = load_codes(tmp_path / "codes" / f"{name}.npz")
        assert file.name == "tiny-wetok"
        assert torch.equal(file.codes, tiny_wetok.encode(original))
        decoded = tiny_wetok.preprocess(tmp_path / "decoded" / f"{name}.png")
        assert decoded.shape == original.shape
        torch.testing.assert_close(decoded, tiny_wetok.reconstruct(original), atol=0.6 / 255, rtol=0)


def test_audio_goes_to_codes_and_back_in_its_own_length(tiny_wavtokenizer, sound, tmp_path):
    run("encode", "tiny-wavtokenizer", sound, "--out", tmp_path / "codes.safetensors")
    run("decode", tmp_path / "codes.safetensors", "--out", tmp_path / "decoded.flac")
    decoded, rate = soundfile.read(tmp_path / "decoded.flac")
    assert (len(decoded), rate) == (24000, 24000)


def test_batches_have_the_codes_of_single_pictures(tiny_wetok, pictures, tmp_path):
    for size in (1, 2, 8):
        run("encode", "tiny-wetok", pictures, "--out", tmp_path / str(size), "--batch-size", size)
    for name in ("a.npz", "b.npz", "more/c.npz"):
        alone, *others = (load_codes(tmp_path / str(size) / name).codes for size in (1, 2, 8))
        assert all(torch.equal(alone, other) for other in others)


def test_encode_reports_json(tiny_wetok, pictures, tmp_path):
    damage(pictures)
    result = run("encode", "tiny-wetok", pictures, "--out", tmp_path, "--json", status=1)
    a, b, c = json.loads(result.stdout)
    assert a == {"source": str(pictures / "a.png"), "target": str(tmp_path / "a.npz"), "codes_shape": [2, 6, 5]}
    assert b.keys() == {"source", "error"}
    assert c["codes_shape"] == [2, 5, 9]


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_a_damaged_file_is_reported_and_the_rest_goes_on(command, tiny_wetok, pictures, tmp_path):
    damage(pictures)
    result = run(command, "tiny-wetok", pictures, "--out", tmp_path / "out", status=1)
    message, count = result.stderr.splitlines()
    assert message.startswith("error: ")
    assert str(pictures / "b.png") in message
    assert count == "1 of 3 files failed"
    written = sorted(path.stem for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written == ["a", "c"]


def test_a_damaged_code_file_is_reported_and_the_rest_goes_on(tiny_wetok, pictures, tmp_path):
    run("encode", "tiny-wetok", pictures, "--out", tmp_path / "codes")
    path = tmp_path / "codes" / "a.npz"
    path.write_bytes(path.read_bytes()[:-30])
    result = run("decode", tmp_path / "codes", "--out", tmp_path / "out", status=1)
    assert str(path) in result.stderr
    assert result.stderr.endswith("1 of 3 files failed\n")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["b.png", "c.png"]


def test_files_that_are_there_are_kept_unless_overwrite_is_asked_for(tiny_wetok, pictures, tmp_path):
    target = tmp_path / "a.npz"
    target.write_bytes(b"precious")
    result = run("encode", "tiny-wetok", pictures / "a.png", "--out", target, status=1)
    assert f"{target}: exists already" in result.stderr
    assert target.read_bytes() == b"precious"
    run("encode", "tiny-wetok", pictures / "a.png", "--out", target, "--overwrite")
    assert load_codes(target).name == "tiny-wetok"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "pictures"]


def test_an_input_is_never_overwritten(tiny_wetok, pictures):
    before = (pictures / "a.png").read_bytes()
    result = run("reconstruct", "tiny-wetok", pictures / "a.png", "--out", pictures, "--overwrite", status=1)
    assert "which belongs to" in result.stderr
    assert (pictures / "a.png").read_bytes() == before


def test_files_of_one_stem_keep_their_names_whole(tiny_wetok, pictures, tmp_path):
    Image.open(pictures / "a.png").save(pictures / "a.bmp")
    run("encode", "tiny-wetok", pictures, "--out", tmp_path / "codes")
    run("decode", tmp_path / "codes", "--out", tmp_path / "decoded")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[cd]*/*.*"))
    assert names == [
        *("codes/a.bmp.npz", "codes/a.png.npz", "codes/b.npz"),
        *("decoded/a.bmp.png", "decoded/a.png.png", "decoded/b.png"),
    ]


def test_the_names_of_outputs_do_not_depend_on_the_order_of_inputs(tiny_wetok, pictures, tmp_path):
    Image.open(pictures / "a.png").save(pictures / "a.bmp")
    inputs = [pictures / "a.bmp", pictures / "a.png"]
    run("encode", "tiny-wetok", *inputs, "--out", tmp_path / "codes")
    result = run("encode", "tiny-wetok", *reversed(inputs), "--out", tmp_path / "codes")
    assert "2 of 2 were done before" in result.stderr
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == ["a.bmp.npz", "a.png.npz"]


def test_a_damaged_file_takes_no_name_from_a_good_one(tiny_wetok, pictures, tmp_path):
    (pictures / "a.jpg").write_bytes(b"damaged")
    result = run("encode", "tiny-wetok", pictures, "--out", tmp_path / "codes", status=1)
    assert str(pictures / "a.jpg") in result.stderr and "1 of 4 files failed" in result.stderr
    assert torch.equal(
        load_codes(tmp_path / "codes" / "a.png.npz").codes,
        tiny_wetok.encode(tiny_wetok.preprocess(pictures / "a.png")),
    )


def test_outputs_of_two_inputs_with_one_path_are_not_mixed(tiny_wetok, pictures, tmp_path):
    (tmp_path / "other").mkdir()
    Image.open(pictures / "b.png").save(tmp_path / "other" / "a.png")
    inputs = [pictures / "a.png", tmp_path / "other" / "a.png"]
    result = run("encode", "tiny-wetok", *inputs, "--out", tmp_path / "codes", "--overwrite", status=1)
    assert f"{inputs[1]}: would be written to {tmp_path / 'codes' / 'a.npz'}" in result.stderr


def test_an_input_that_is_named_twice_is_taken_once(tiny_wetok, pictures, tmp_path):
    result = run("encode", "tiny-wetok", pictures, pictures / "a.png", "--out", tmp_path / "codes", "--json")
    assert len(json.loads(result.stdout)) == 3


def test_one_output_file_takes_one_input(tiny_wetok, pictures, tmp_path):
    line = error_line(run("encode", "tiny-wetok", pictures, "--out", tmp_path / "all.npz", status=1))
    assert "is one file, but there are 3 inputs" in line


def test_inputs_that_are_not_there_are_named(tiny_wetok, tmp_path):
    missing = tmp_path / "missing"
    for command in (["encode", "tiny-wetok", missing], ["decode", missing], ["reconstruct", "tiny-wetok", missing]):
        assert f"{missing}: no such file or folder" in error_line(run(*command, "--out", tmp_path / "out", status=1))
    (tmp_path / "empty").mkdir()
    for command in (["encode", "tiny-wetok"], ["decode"]):
        line = error_line(run(*command, tmp_path / "empty", "--out", tmp_path / "out", status=1))
        assert line.startswith(f"error: {tmp_path / 'empty'}: holds no ")
    assert not (tmp_path / "out").exists()


def test_codes_are_decoded_by_the_tokenizer_that_made_them(tiny_wetok, tiny_wavtokenizer, pictures, tmp_path):
    run("encode", "tiny-wetok", pictures / "a.png", "--out", tmp_path / "a.npz")
    run("decode", tmp_path / "a.npz", "--out", tmp_path / "a.png", "--name", "tiny-wetok")
    result = run("decode", tmp_path / "a.npz", "--out", tmp_path / "b.png", "--name", "tiny-wavtokenizer", status=1)
    assert "expected codes of 'tiny-wavtokenizer', got codes of 'tiny-wetok'" in result.stderr


def test_a_file_with_a_batch_of_codes_is_refused(tiny_wetok, tmp_path):
    codes = torch.zeros(2, 2, 4, 4, dtype=torch.long)
    save_codes(tmp_path / "batch.npz", codes, name="tiny-wetok", codebook_sizes=(256, 256))
    result = run("decode", tmp_path / "batch.npz", "--out", tmp_path / "out", status=1)
    assert "holds a batch" in result.stderr


def test_another_sample_rate_is_resampled_or_refused(tiny_wavtokenizer, sound, tmp_path):
    result = run("encode", "tiny-wavtokenizer", sound, "--out", tmp_path / "codes", "--no-resample", status=1)
    assert "24000 Hz, got 16000 Hz" in result.stderr
    run("encode", "tiny-wavtokenizer", sound, "--out", tmp_path / "codes")
    assert load_codes(tmp_path / "codes" / "noise.npz").codes.shape == (1, 1, 75)


def test_a_device_that_is_not_there_is_wrong_usage(tiny_wetok, pictures, tmp_path):
    result = run("encode", "tiny-wetok", pictures, "--out", tmp_path / "codes", "--device", "abacus", status=2)
    assert "device 'abacus' cannot be used" in result.stderr


def test_a_saved_folder_stands_for_a_name(tiny_wetok, pictures, tmp_path):
    tiny_wetok.save_pretrained(tmp_path / "saved")
    run("encode", tmp_path / "saved", pictures, "--out", tmp_path / "codes", "--dtype", "bfloat16")
    assert load_codes(tmp_path / "codes" / "a.npz").name == "tiny-wetok"


# zoo reconstruct


def test_reconstruct_tells_what_pictures_cost_and_lost(tiny_wetok, pictures, tmp_path):
    table = run("reconstruct", "tiny-wetok", pictures, "--out", tmp_path / "out").stdout.splitlines()
    assert table[0].split() == ["file", "tokens", "bits", "ratio", "PSNR", "(dB)", "SSIM", "seconds"]
    assert len(table) == 4
    (row,) = json.loads(
        run("reconstruct", "tiny-wetok", pictures / "a.png", "--out", tmp_path / "a.png", "--json").stdout
    )
    assert row["tokens"] == 2 * 6 * 5
    assert row["bits"] == 8 * row["tokens"]
    assert row["compression_ratio"] == 3 * 24 * 20 / row["tokens"]
    assert 0 < row["psnr"] < 100
    assert -1 <= row["ssim"] <= 1
    assert Image.open(row["target"]).size == (20, 24)


def test_reconstruct_tells_what_audio_cost_and_lost(tiny_wavtokenizer, sound, tmp_path):
    (row,) = json.loads(run("reconstruct", "tiny-wavtokenizer", sound, "--out", tmp_path / "out", "--json").stdout)
    assert row["tokens"] == 75
    assert row["bits"] == 6 * 75
    assert row["compression_ratio"] == 16 * 24000 / 450
    assert row["mel_distance"] > 0
    assert "stoi" in row
    assert soundfile.info(row["target"]).samplerate == 24000


# zoo parity


def test_parity_exits_0_within_the_tolerance_and_1_beyond_it(install, tmp_path):
    register_small("wetok-small", False)
    manifest, golden = write_golden(tmp_path, False, (32, 32), 1, 0)
    arguments = ["parity", "wetok-small", "--manifest", manifest, "--golden", golden]
    text = run(*arguments).stdout
    assert "100.0000% agree" in text
    assert text.endswith("passed\n")
    report = json.loads(run(*arguments, "--seed", 1, "--json", status=1).stdout)
    assert not report["passed"]
    assert report["differences"]["latent"] > report["tolerance"]["latent_max_abs"]


def test_parity_names_a_file_that_is_not_there(install, tmp_path):
    register_small("wetok-small", False)
    missing = tmp_path / "manifest.json"
    line = error_line(run("parity", "wetok-small", "--manifest", missing, "--golden", missing, status=1))
    assert str(missing) in line


# zoo pull, zoo push, zoo train


def test_pull_prints_where_the_weights_are(tiny_wetok):
    path = Path(run("pull", "tiny-wetok").stdout.strip())
    assert path == zoo.info("tiny-wetok").shipped


def test_pull_without_a_network_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = error_line(run("pull", "wetok-imagenet-f8", status=1))
    assert "GrayShine/WeTok" in line
    assert "HF_HUB_OFFLINE" in line


def test_push_without_a_token_says_how_to_get_one(tiny_wetok, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "hf auth login" in error_line(run("push", "tiny-wetok", "someone/tiny-wetok", status=1))


def test_train_writes_weights(tiny_wetok, pictures, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("tokenizer: tiny-wetok\ndata: {crop: 16}\nlosses: {l1: 1.0}\nsteps: 5\nbatch_size: 1\n")
    arguments = ["train", recipe, "steps=2", "--data", pictures, "--out", tmp_path / "run", "--accelerator", "cpu"]
    result = json.loads(run(*arguments, "--json").stdout)
    assert result["step"] == 2
    assert Path(result["weights"]).is_file()


def test_export_writes_the_weights_of_a_checkpoint(tiny_wetok, pictures, tmp_path):
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(
        "tokenizer: tiny-wetok\ndata: {crop: 16}\nlosses: {l1: 1.0}\nsteps: 2\nbatch_size: 1\n"
        "optimizer: {learning_rate: 1.0, warmup_steps: 0, ema_decay: 0.0, clip_norm: .inf}\n"
        "validation: {every: 1, best: psnr, items: 1}\n"
    )
    run("train", recipe, "--data", pictures, "--validation-data", pictures, "--out", folder, "--accelerator", "cpu")
    assert run("export", folder, "--out", tmp_path / "last.safetensors").stdout.strip().endswith("last.safetensors")
    run("export", folder, "--best", "--out", tmp_path / "best.safetensors")
    best, last = (read_metadata(tmp_path / f"{name}.safetensors")["steps"] for name in ("best", "last"))
    assert (best, last) == ("1", "2")
    assert zoo.load(tmp_path / "best.safetensors").spec.name == "tiny-wetok"
    assert "no run here" in error_line(run("export", tmp_path, status=1))


def test_train_refuses_what_a_recipe_does_not_have(pictures):
    result = run("train", "wetok-nano", "speed=9", "--data", pictures, status=1)
    assert "unknown key speed" in error_line(result)


def test_samples_are_shipped_with_a_note():
    note = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(path.name in note for path in FOLDER.iterdir() if path.suffix in (".png", ".flac"))
