"""Runs over files that go on after a stop: what is kept, what is made again, and what a killed run leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

import zoo
from zoo import media
from zoo.codes import load_codes, save_codes
from zoo.errors import InputError, UnexpectedError
from zoo.files import atomic_path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of three pictures of one size."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(random.integers(256, size=(24, 20, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def outcomes(results) -> str:
    """One letter a result: new, before or error."""
    return "".join("e" if result.error else "b" if result.done_before else "n" for result in results)


def test_encode_goes_on_where_it_stopped(tiny_wetok, pictures, tmp_path):
    results = iter(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    next(results)
    again = list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    assert outcomes(again) == "bnn"
    assert again[0].target == tmp_path / "codes" / "a.npz" and again[0].codes_shape == (2, 6, 5)


@pytest.mark.parametrize("options", [{"resolution": 16}, {"crop": 8}])
def test_codes_of_other_options_are_an_error_of_their_file(tiny_wetok, pictures, tmp_path, options):
    list(zoo.encode_files(tiny_wetok, [pictures / "a.png"], tmp_path, **options))
    assert outcomes(zoo.encode_files(tiny_wetok, [pictures / "a.png"], tmp_path, **options)) == "b"
    results = list(zoo.encode_files(tiny_wetok, [pictures], tmp_path))
    assert outcomes(results) == "enn"
    assert f"with options {options} instead of {{}}; overwrite replaces it" in str(results[0].error)
    assert outcomes(zoo.encode_files(tiny_wetok, [pictures], tmp_path, overwrite=True)) == "nnn"


def test_codes_of_another_tokenizer_are_an_error_of_their_file(tiny_wetok, pictures, tmp_path):
    codes = torch.zeros(1, 2, 6, 5, dtype=torch.int64)
    save_codes(tmp_path / "a.npz", codes, name="other", codebook_sizes=(256, 256))
    results = list(zoo.encode_files(tiny_wetok, [pictures], tmp_path))
    assert outcomes(results) == "enn"
    assert "expected codes of 'tiny-wetok', got codes of 'other'" in str(results[0].error)


def test_codes_of_another_source_are_an_error_of_their_file(tiny_wetok, pictures, tmp_path):
    list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    Image.new("RGB", (20, 24)).save(pictures / "a.png")
    assert outcomes(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes")) == "ebb"


def test_codes_that_are_older_than_their_source_are_an_error_of_their_file(tiny_wetok, pictures, tmp_path):
    list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    os.utime(pictures / "b.png", (time.time() + 9, time.time() + 9))
    results = list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    assert outcomes(results) == "beb"
    assert "is older than" in str(results[1].error)


def test_decode_and_reconstruct_go_on_where_they_stopped(tiny_wetok, pictures, tmp_path):
    list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    for run in (
        lambda: zoo.decode_files([tmp_path / "codes"], tmp_path / "decoded"),
        lambda: zoo.reconstruct_files(tiny_wetok, [pictures], tmp_path / "again"),
    ):
        next(iter(run()))
        assert outcomes(run()) == "bnn"


@pytest.mark.parametrize("error", [MemoryError("no room"), ZeroDivisionError("by 0"), OSError(5, "broken")])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_error_that_nobody_foresaw_stays_with_its_file(tiny_wetok, pictures, tmp_path, error, batch_size):
    def fail_on_grey(module, inputs):
        if any(bool((item == 0).all()) for item in inputs[0]):
            raise error

    Image.new("RGB", (20, 24), (127, 127, 127)).save(pictures / "b.png")
    tiny_wetok.input_mean = 127 / 255
    tiny_wetok.encoder.register_forward_pre_hook(fail_on_grey)
    results = list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes", batch_size=batch_size))
    assert outcomes(results) == "nen"
    assert isinstance(results[1].error, UnexpectedError) and results[1].error.__cause__ is error
    assert f"unexpected {type(error).__name__}: " in str(results[1].error)


def test_ctrl_c_is_no_error_of_a_file(tiny_wetok, pictures, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    tiny_wetok.encoder.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))


def test_weights_that_are_missing_for_one_code_file_stop_no_other(tiny_wetok, pictures, tmp_path, monkeypatch):
    list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    spec = zoo.info("wetok-imagenet-f8").spec
    codes = torch.zeros(1, spec.num_codebooks, 6, 5, dtype=torch.int64)
    save_codes(tmp_path / "codes" / "0.npz", codes, name=spec.name, codebook_sizes=spec.codebook_sizes)
    results = list(zoo.decode_files([tmp_path / "codes"], tmp_path / "decoded"))
    assert outcomes(results) == "ennn"
    assert "HF_HUB_OFFLINE" in str(results[0].error)


def test_codes_that_do_not_fit_the_stated_size_are_refused_with_both(tiny_wetok, tmp_path):
    codes = torch.zeros(1, 2, 6, 5, dtype=torch.int64)
    save_codes(tmp_path / "a.npz", codes, name="tiny-wetok", codebook_sizes=(256, 256), size=(40, 20))
    (result,) = zoo.decode_files([tmp_path / "a.npz"], tmp_path / "decoded")
    assert "40 x 20" in str(result.error) and "holds 6 x 5, enough for 24 x 20" in str(result.error)


def test_each_chain_has_a_code_file_of_its_own(tiny_dplm2, tmp_path):
    atoms = tiny_dplm2.modality.example(tiny_dplm2.spec, 2, (12,), torch.Generator().manual_seed(0))
    lines = []
    for name, values in zip("AB", atoms, strict=True):
        media.write_structure(tmp_path / "part.pdb", values, chain=name, overwrite=True)
        lines += [line for line in (tmp_path / "part.pdb").read_text().splitlines() if line.startswith("ATOM")]
    entry = tmp_path / "entry.pdb"
    entry.write_text("\n".join([*lines, "END", ""]))
    (result,) = zoo.encode_files(tiny_dplm2, [entry], tmp_path / "codes")
    assert "--chain" in str(result.error) and "--all-chains" in str(result.error)
    assert outcomes(zoo.encode_files(tiny_dplm2, [entry], tmp_path / "codes", all_chains=True)) == "nn"
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == ["entry_A.npz", "entry_B.npz"]
    assert outcomes(zoo.encode_files(tiny_dplm2, [entry], tmp_path / "codes", all_chains=True)) == "bb"
    alone = tiny_dplm2.encode(tiny_dplm2.preprocess(entry, chain="B"))
    assert torch.equal(load_codes(tmp_path / "codes" / "entry_B.npz").codes, alone)


def test_chains_are_of_structures(tiny_wetok, pictures, tmp_path):
    with pytest.raises(InputError, match="takes images, which have no chains"):
        zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes", all_chains=True)


# Processes that are ended

ENCODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell ignores
from zoo.cli import main
from zoo import codes, files
import zoo.transcode.encoding as encoding

def slow(path, *arguments, overwrite=False, **options):
    if path.stem == "b":
        with files.atomic_path(path, overwrite) as temporary:
            temporary.write_bytes(b"half")
            print("writing", flush=True)
            import time
            time.sleep(60)
    return codes.save_codes(path, *arguments, overwrite=overwrite, **options)

encoding.save_codes = slow
main()
"""


def end_while_writing(number: int, pictures: Path, out: Path) -> subprocess.CompletedProcess:
    """`zoo encode`, ended by a signal while the second of three code files is half written."""
    arguments = ["encode", "wetok-nano", str(pictures), "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", ENCODE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()  # shown as soon as it is done
        assert first == f"{pictures / 'a.png'} -> {out / 'a.npz'}\n", process.communicate()[1]
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, first, errors)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_says_what_is_done_and_leaves_no_hidden_file(pictures, tmp_path, number, status):
    result = end_while_writing(number, pictures, tmp_path / "codes")
    assert result.returncode == status
    assert "stopped: 1 of 3 files are done; the same command does the others\n" in result.stderr
    assert [path.name for path in (tmp_path / "codes").iterdir()] == ["a.npz"]


def test_what_a_killed_run_was_writing_is_removed_by_the_next_which_goes_on(pictures, tmp_path):
    result = end_while_writing(signal.SIGKILL, pictures, tmp_path / "codes")
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "codes" / "b.npz").exists()
    assert outcomes(zoo.encode_files("wetok-nano", [pictures], tmp_path / "codes")) == "bnn"
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == ["a.npz", "b.npz", "c.npz"]


def test_a_file_that_another_process_writes_is_no_leftover(tiny_wetok, pictures, tmp_path):
    (tmp_path / "codes").mkdir()
    with atomic_path(tmp_path / "codes" / "other.npz") as temporary:
        temporary.write_bytes(b"whole")
        list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    assert (tmp_path / "codes" / "other.npz").read_bytes() == b"whole"
