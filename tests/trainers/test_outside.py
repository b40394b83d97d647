"""What comes from outside into a run: recipes as files, options, run folders that others use, odd data."""

import io
import math
import multiprocessing
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.support.paths import ROOT, SHARED
from tests.support.recipes import AUDIO, IMAGE
from zoo.errors import CheckpointError, InputError, MediaError, ZooError
from zoo.sources.locations import locate
from zoo.trainers import create_tokenizer, export, load_recipe, train
from zoo.trainers.data.signals import Signals
from zoo.trainers.run_folder import RunFolder

CASES = SHARED / "cases"
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"tokenizer: \xff\xfe", "not UTF-8: byte 0xff at 11"),
        (b"a: " + b"[" * 60_000, "nested too deep"),
        (b"config: &a\n  width: *a\n", "config.* contains itself"),
        (BOMB.encode(), "more than 10000 values"),
        (b"steps: 1\nsteps: 2\n", "line 2: the key 'steps' is given twice"),
        (b"3: 4\n", "line 1: expected text as a key, got 3"),
        (b"? [a]\n: 1\n", "expected text as a key, got sequence"),
        (b"a:\n\t- b\n", "not YAML: .*line 2"),
        (b"a: !!python/object/apply:os.system [ls]\n", "expected keys and values, a list, text"),
        (b"a: !!int x\n", "line 1: expected a number, got 'x'"),
        (b'a: "\\UFFFFFFFF"\n', "not YAML"),
        (b"a: " + b"9" * 5000, "a number of at most 100 digits, got 5000"),
        (b"a: 1" * 100_000, "at most 65536 bytes"),
        (b"- a\n", r"expected keys and values, got \['a'\]"),
        (b"", "expected keys and values, got None"),
        (b"tokenizer: 2001-01-01\nsteps: 2001-01-01\n", "missing|expected steps as a whole number, got '2001-01-01'"),
        (b"tokenizer: wetok-nano\nweights: .nan\n", "expected weights as a number, got nan"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_error_that_names_it(content, message, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"(?s)odd\.yaml: .*{message}") as error:
        load_recipe(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "source", [None, 3, b"wetok-nano", "x" * 10_000, "a\0b", ".", Path("/dev/null"), "/dev/zero.yaml", ["wetok-nano"]]
)
def test_what_names_no_recipe_is_an_error(source):
    with pytest.raises(InputError) as error:
        load_recipe(source)
    assert len(str(error.value)) < 1000


def test_a_folder_and_an_unreadable_file_are_no_recipes(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "memory.yaml").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match="not a file"):
        load_recipe(tmp_path / "folder.yaml")
    with pytest.raises(InputError, match=r"memory\.yaml: cannot be read"):
        load_recipe(tmp_path / "memory.yaml")


def test_values_are_those_of_yaml_1_2(tmp_path):
    recipe = load_recipe("wetok-nano", ["steps=010", "batch_size=0x10", "optimizer.learning_rate=1e-4"])
    assert (recipe.steps, recipe.batch_size, recipe.optimizer.learning_rate) == (10, 16, 1e-4)
    for text in ("yes", "1:30", "1_000", "2001-01-01", "true"):
        with pytest.raises(InputError, match="expected steps as a whole number"):
            load_recipe("wetok-nano", [f"steps={text}"])


def contains_itself() -> dict:
    value = {}
    value["a"] = value
    return value


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 10**30}, "expected steps as a whole number below 2\\*\\*63"),
        ({"steps": 10**5000}, "expected steps as a whole number below 2\\*\\*63, got one of"),
        ({"steps": 10**9}, "expected steps of at most 99999999"),
        ({"steps": True}, "expected steps as a whole number, got True"),
        ({"accumulate": 2**62}, "fewer than 2\\*\\*63 samples"),
        ({"seed": -1}, "expected seed of at least 0"),
        ({"losses.l1": math.nan}, "losses.l1 as a number, got nan"),
        ({"losses.l1": math.inf}, "losses.l1 as a finite number, got inf"),
        ({"losses.l1": -1.0}, "expected losses.l1 >= 0"),
        ({"optimizer.learning_rate": math.inf}, "optimizer.learning_rate as a finite number"),
        ({"data.scale": [1e-9, 1.0]}, "expected data.scale from 0.001"),
        ({"data.workers": 10**6}, "expected data.workers of at most 256"),
        ({"weights": "a\0b"}, "expected weights as Unicode text without NUL"),
        ({"weights": "\ud800"}, "expected weights as Unicode text without NUL"),
        ({"config": contains_itself()}, "contains itself"),
        ({"config": {3: 4}}, "expected text as a key of config, got 3"),
        ({"config.width": object()}, "as a plain value, got a object"),
        ({"x\ny" * 10_000: 1}, "unknown key 'x"),
        ({"a..b": 1}, "expected the key of an override"),
        ({".".join("a" * 100): 1}, "expected the key of an override"),
    ],
)
def test_a_value_that_no_run_could_have_is_named(change, message):
    with pytest.raises(InputError, match=message) as error:
        load_recipe({}, {**IMAGE, **change})
    assert len(str(error.value)) < 1000


def test_an_infinite_clip_norm_is_none():
    assert load_recipe({}, {**IMAGE, "optimizer.clip_norm": math.inf}).optimizer.clip_norm == math.inf


@pytest.mark.parametrize("overrides", [None, 3, "steps=3", [3], {3: 4}])
def test_overrides_of_other_types_are_an_error(overrides):
    with pytest.raises(InputError, match=r"override|key=value"):
        load_recipe("wetok-nano", overrides)


@pytest.mark.parametrize(
    "values",
    [
        {"config.width": 1_000_000},
        {"config.width": 0},
        {"config.width": -8},
        {"config.num_blocks": 10**9},
        {"config.num_blocks": 10**7},
        {"config.multipliers": []},
        {"spec.codebook_sizes": []},
        {"spec.name": "other"},
    ],
)
def test_a_network_that_cannot_be_built_is_an_error_within_bounded_memory(values):
    code = f"""
import resource, sys, time
from tests.support.recipes import IMAGE
from zoo.errors import InputError
from zoo.trainers import create_tokenizer, load_recipe
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
try:
    create_tokenizer(load_recipe({{}}, {{**IMAGE, **{values!r}}}))
except InputError as error:
    sys.exit(0 if len(str(error)) < 1000 else 2)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


@pytest.mark.parametrize(
    "values", [{**IMAGE, "batch_size": 10**12}, {**IMAGE, "data.crop": 10**9}, {**AUDIO, "data.seconds": 1e300}]
)
def test_a_batch_beyond_the_memory_is_refused_before_anything_is_set_up(values, tmp_path):
    with pytest.raises(InputError, match=r"recipe: a batch .* takes .* GiB, there are"):
        train({}, values, data=tmp_path, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        *({"minutes": minutes} for minutes in (math.nan, -1, "3", True)),
        *({"devices": devices} for devices in (0, -5, 10**12, "many", "10000000", 1.5)),
        *({"accelerator": name} for name in ("warp", "x" * 10_000)),
        {"strategy": "none such"},
        {"num_nodes": 0},
        {"num_nodes": 10**9},
        *({"data": data} for data in (None, 3, b"x", "", "a\0b", "x" * 10_000, "hf://a:b:c:d", ["a"])),
        *({"data": data} for data in ("/dev/null", "{0..99999999999}.tar", "{a,b}" * 40 + ".tar", "{1{2.tar")),
        *({"validation_data": data} for data in (3, "", "nowhere")),
        *({"run_dir": folder} for folder in (3, "", "a\0b", "x" * 10_000)),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_set_up(options, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError):
        train({}, IMAGE, **{"data": images, "run_dir": "run", **options})
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_a_file_is_an_error(images, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(MediaError, match="run: cannot hold a run"):
        train({}, IMAGE, data=images, run_dir=tmp_path / "run")


def hold(folder: Path, ready, done) -> None:
    with RunFolder(folder).locked():
        (folder / "recipe.yaml").touch()
        ready.set()
        done.wait()


def test_a_second_trainer_in_a_folder_is_told_and_a_killed_one_holds_nothing(images, tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    holder.start()
    ready.wait()
    with pytest.raises(InputError, match=rf"process {holder.pid} on .* is training here"):
        train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    holder.kill()
    holder.join()
    assert train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run").step == 1


def test_weights_are_exported_while_another_process_trains(images, tmp_path):
    result = train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    with RunFolder(result.run_dir).locked():
        assert export(result.run_dir, tmp_path / "weights.safetensors").is_file()


KILLED = """
import os, signal, sys
import zoo.checkpoints.reading, torch
def stop(written, path, *rest):
    open(path, "wb").write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "export":
    zoo.checkpoints.reading.save_file = stop
    from zoo.trainers import export
    export(sys.argv[2])
else:
    torch.save = stop
    from zoo.trainers.run_folder import RunFolder
    RunFolder(sys.argv[2]).save({"step": 1}, keep=1)
"""


@pytest.mark.parametrize("what", ["export", "checkpoint"])
def test_a_kill_in_the_middle_of_writing_leaves_the_old_file_whole(what, images, tmp_path):
    result = train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    (checkpoint,) = RunFolder(result.run_dir).steps()
    path = result.weights if what == "export" else checkpoint
    before = path.read_bytes()
    process = subprocess.run([sys.executable, "-c", KILLED, what, str(result.run_dir)], cwd=ROOT)
    assert process.returncode == -9
    assert path.read_bytes() == before
    left = [found for found in result.run_dir.rglob(".*") if found.is_file()]
    assert len(left) == 1
    train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    assert not list(result.run_dir.rglob(".*"))


@pytest.mark.parametrize("content", [{"step": 1}, {"step": "x", "tokenizer": {}, "averaged": {}}])
def test_a_checkpoint_that_is_not_of_a_run_is_an_error(content, images, tmp_path):
    result = train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    torch.save(content, RunFolder(result.run_dir).steps()[-1])
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
        export(result.run_dir)


def test_a_term_that_becomes_infinite_is_named_with_its_step(images, tmp_path):
    values = {**IMAGE, "losses": {"l1": 1.0, "l2": 1.0}, "optimizer.clip_norm": math.inf}
    values |= {"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "log_every": 5, "steps": 9}
    with pytest.raises(ZooError, match=r"diverged at step 2: .*l1.* not finite; a lower optimizer.learning_rate"):
        train({}, values, data=images / "train", run_dir=tmp_path / "run")


def test_a_first_step_that_cannot_be_computed_is_an_error_of_the_recipe(speech, tmp_path):
    with pytest.raises(InputError, match="the first step cannot be computed"):
        train({}, {**AUDIO, "data.seconds": 0.001}, data=speech / "train", run_dir=tmp_path / "run")


def signals_of(values, data) -> Signals:
    recipe = load_recipe({}, values)
    return Signals(data, create_tokenizer(recipe).spec, recipe.data)


def test_a_sound_with_a_sample_that_is_not_finite_is_skipped_counted_and_named(speech, capfd):
    samples = np.zeros(8000, np.float32)
    samples[4000] = np.nan
    soundfile.write(speech / "train" / "9.wav", samples, 16000, "FLOAT")
    assert signals_of(AUDIO, speech / "train").damaged == {4}
    error = capfd.readouterr().err
    assert "9.wav: audio has values that are not finite" in error
    assert "1 of 5 files skipped" in error


@pytest.mark.parametrize("workers", [0, 2])
def test_any_error_of_one_sample_is_named_with_its_type_and_ends_no_run(workers, images, tmp_path, monkeypatch, capfd):
    import zoo.trainers.data.signals as reading

    def read(path):
        if path.name == "2.png":
            raise ZeroDivisionError("of a library")
        return original(path)

    original = reading.read_image
    monkeypatch.setattr(reading, "read_image", read)
    values = {**IMAGE, "data.cache_gib": 0.0, "data.workers": workers}
    assert train({}, values, data=images / "train", run_dir=tmp_path / "run").step == 6
    assert "2.png: ZeroDivisionError: of a library" in capfd.readouterr().err


def write_shard(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_samples_of_names_with_more_dots_are_named_with_the_reason(images, tmp_path, capfd):
    picture = (images / "train" / "0.png").read_bytes()
    names = ("photo v2.0.png", "photo v2.1.png", "a.left.png", "a.right.png", "plain.png", "b.left.png", "b.png")
    signals = signals_of(IMAGE, write_shard(tmp_path / "0.tar", dict.fromkeys(names, picture)))
    error = capfd.readouterr().err
    assert len(signals) == 6 and signals.damaged == {0, 1, 2, 3}
    assert "0.tar: photo v2.0.png: not used: the key of a sample ends at the first dot" in error
    assert "a.left.png: not used" in error and "4 of 6 files skipped" in error


def test_headers_that_point_back_or_beyond_end_the_shard(images, tmp_path, capfd):
    picture = (images / "train" / "0.png").read_bytes()
    for size in (-512, 2**40):
        shard = write_shard(tmp_path / "0.tar", {"0.png": picture, "1.png": picture})
        content = bytearray(shard.read_bytes())
        at = content.index(b"1.png")
        field = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
        content[at + 124 : at + 136] = field
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        shard.write_bytes(content)
        assert signals_of(IMAGE, shard).damaged >= {1}
        assert "0.tar" in capfd.readouterr().err


def test_a_pattern_of_too_many_shards_is_refused():
    with pytest.raises(InputError, match="at most 100000 shards"):
        locate("x{0..9999999}.tar")


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    "values, name, damaged",
    [
        (AUDIO, "20_nan_in_training", None),
        (AUDIO, "03_channels_change", set()),
        (IMAGE, "16_webdataset_dots/dots.tar", {0, 1, 2, 3}),
        (IMAGE, "16_webdataset_dots/leftright.tar", None),
    ],
)
def test_the_shared_cases_end_no_run(values, name, damaged, capfd):
    if damaged is None:
        with pytest.raises(MediaError, match="can be read"):
            signals_of(values, CASES / name)
        assert "not finite" in (error := capfd.readouterr().err) or "not used" in error
    else:
        assert signals_of(values, CASES / name).damaged == damaged
