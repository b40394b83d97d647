"""Runs that are killed, and runs of several processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import zoo
from tests.support.paths import ROOT
from tests.support.recipes import AUDIO, IMAGE, losses
from zoo.checkpoints import read_checkpoint
from zoo.trainers import load_recipe, train
from zoo.trainers.run_folder import RunFolder

# Imports once what training takes, which is most of a short run, and forks for every run it is asked for.
LAUNCHER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
import zoo.trainers.validation, zoo.metrics.streaming
from tests.support import teachers
from zoo.trainers import train
from tests.support.paths import ROOT

teachers.install()

def start(environment, recipe, data, run_dir, **options):
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        try:
            train(recipe, data=data, run_dir=run_dir, accelerator="cpu", **options)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child

def sharded():
    # FSDP as Fabric has it, on the CPU, which torch refuses only when it asks for the device.
    from lightning_fabric.strategies import FSDPStrategy
    from torch.distributed.fsdp import _common_utils, fully_sharded_data_parallel

    def use_cpu(state, *_):
        state._device_handle = _common_utils._FSDPDeviceHandle.from_device(torch.device("cpu"))
        return state

    fully_sharded_data_parallel._init_device_handle = use_cpu
    return type("CPU", (FSDPStrategy,), {})()

def run_on_two(strategy, port, *arguments):
    # Two processes with the environment that torchrun gives its own.
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    options = {"strategy": sharded() if strategy == "fsdp" else strategy}
    children = [start(rank, *arguments, **options) for rank in ranks]
    return [os.waitpid(child, 0)[1] for child in children]

def logged_step(run_dir):
    history = Path(run_dir) / "history.jsonl"
    lines = [line for line in history.read_text().splitlines() if line.endswith("}}")] if history.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)

def kill_and_resume(recipe, data, run_dir):
    # Each attempt has a little more time than the last, so that there is an end; the first two are killed, however
    # fast the machine is, when they have come so far.
    waits, kills = random.Random(0), 0
    while True:
        child = start({}, recipe, data, run_dir)
        deadline = time.monotonic() + waits.uniform(0.2, 0.8) + 0.2 * kills
        while time.monotonic() < deadline and (kills >= 2 or logged_step(run_dir) < 4 * (kills + 1)):
            time.sleep(0.005)
            if os.waitpid(child, os.WNOHANG)[0]:
                return kills
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1

for line in sys.stdin:
    function, *arguments = json.loads(line)
    print(json.dumps(globals()[function](*arguments)), flush=True)
"""


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., object]]:
    """Calls a function of `LAUNCHER` in its process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER]
    root = ROOT
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as process:

        def call(*words: object) -> object:
            process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield call
        process.stdin.close()


def write(path: Path, values: dict) -> Path:
    path.write_text(load_recipe({}, values).to_yaml())
    return path


@pytest.mark.usefixtures("tiny_teachers")
def test_a_run_killed_again_and_again_repeats_one_that_was_not_step_for_step(launch, speech, tmp_path):
    judge = {"arguments": {"periods": [2], "widths": [4, 8]}, "weight": 1.0, "lecam": 0.1}
    values = {**AUDIO, "steps": 14, "checkpoint_every": 3, "log_every": 2, "data.seconds": 0.1}
    values["adversarial"] = {"discriminators": {"multi_period": judge}, "start_step": 4}
    values |= {"teachers.speech": {"teacher": "hubert-base-ls960", "weight": 1.0}, "perturbation": {"beta": 0.5}}
    values |= {"validation.every": 4, "validation.best": "mel_distance", "validation.metrics": ["mel_distance"]}
    recipe = write(tmp_path / "recipe.yaml", values)
    kills = launch("kill_and_resume", recipe, speech, tmp_path / "killed")
    train(recipe, data=speech, run_dir=tmp_path / "whole")

    assert kills >= 2
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "killed")) == list(range(2, 15, 2))
    for name in ("step-00000014.pt", "best.pt"):
        ours, theirs = (read_checkpoint(tmp_path / run / "checkpoints" / name) for run in ("killed", "whole"))
        assert plain(ours) == plain(theirs)
    assert not list((tmp_path / "killed").rglob(".*"))


def plain(state: object) -> object:
    """A checkpoint without tensors."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_are_one_with_the_doubled_batch(strategy, launch, port, images, tmp_path):
    # Neither batch norms, which see their own process's part, nor entropies, which do too; and more channels than
    # groups of the norms, before which a bias would have no gradient but rounding's.
    judge = {"arguments": {"resolution": 16, "channel_base": 64}, "weight": 0.5, "feature_matching": 1.0}
    values = {**IMAGE, "config.width": 64, "losses": {"l1": 1.0, "commitment_loss": 0.1}, "steps": 3, "accumulate": 2}
    values["adversarial"] = {"discriminators": {"stylegan": {**judge, "lecam": 0.1, "r1": 0.1}}, "start_step": 1}
    values |= {"validation.best": "psnr", "freeze": ["decoder.mid"]}
    two = write(tmp_path / "two.yaml", {**values, "batch_size": 1, "checkpoint_every": 1})
    one = write(tmp_path / "one.yaml", {**values, "batch_size": 2})
    assert launch("run_on_two", strategy, port, two, images, tmp_path / "two") == [0, 0]
    train(one, data=images, run_dir=tmp_path / "one")
    assert_equal_runs(tmp_path)


@pytest.mark.usefixtures("tiny_teachers")
def test_two_processes_train_heads_and_leave_frozen_parts_as_one_does_in_two_passes(launch, port, images, tmp_path):
    # InfoNCE tells pictures of one pass apart.
    values = {**IMAGE, "config.width": 64, "losses": {"l1": 1.0}, "steps": 3, "batch_size": 2}
    values |= {"teachers.semantic": {"teacher": "dinov2-small", "weight": 0.5}, "freeze": ["decoder.mid"]}
    two = write(tmp_path / "two.yaml", {**values, "checkpoint_every": 1})
    one = write(tmp_path / "one.yaml", {**values, "accumulate": 2})
    assert launch("run_on_two", "auto", port, two, images, tmp_path / "two") == [0, 0]
    train(one, data=images, run_dir=tmp_path / "one")
    assert_equal_runs(tmp_path)


def assert_equal_runs(folder: Path) -> None:
    two, one = (RunFolder(folder / name).load(load_recipe(folder / f"{name}.yaml")) for name in ("two", "one"))
    for ours, theirs in zip(networks(two), networks(one), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            difference = (ours[key] - value).abs()
            # Adam makes a step of up to 2e-3 even of a gradient that is next to nothing.
            assert difference.max() < 2e-4, key
            assert difference.mean() < 2e-6, key
    for step, values in losses(folder / "one").items():
        assert losses(folder / "two")[step] == pytest.approx(values, abs=1e-4)


def networks(checkpoint: dict) -> list[dict[str, torch.Tensor]]:
    parts = [checkpoint["tokenizer"], checkpoint["averaged"], checkpoint.get("heads", {})]
    adversary = checkpoint.get("adversary", {"discriminators": {}, "lecam": {}})
    return [*parts, adversary["discriminators"], adversary["lecam"]]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_of_two_processes_goes_on_where_it_stopped(strategy, launch, port, images, tmp_path):
    judge = {"arguments": {"resolution": 16, "channel_base": 64}, "weight": 0.5}
    values = {**IMAGE, "config.width": 64, "losses": {"l1": 1.0}, "steps": 4, "batch_size": 1, "checkpoint_every": 2}
    values["adversarial"] = {"discriminators": {"stylegan": judge}}
    recipe = write(tmp_path / "one.yaml", values)
    write(tmp_path / "two.yaml", values)
    assert launch("run_on_two", strategy, port, recipe, images, tmp_path / "one") == [0, 0]
    (tmp_path / "two").mkdir()
    for name in ("recipe.yaml", "history.jsonl", "checkpoints"):
        copy = shutil.copytree if name == "checkpoints" else shutil.copy
        copy(tmp_path / "one" / name, tmp_path / "two" / name)
    (tmp_path / "two" / "checkpoints" / "step-00000004.pt").unlink()
    assert launch("run_on_two", strategy, port, recipe, images, tmp_path / "two") == [0, 0]
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    assert_equal_runs(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_a_compiled_run_gives_the_losses_of_one_that_is_not(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    values = {**values, "steps": 3}
    train({}, values, data=data, run_dir=tmp_path / "plain")
    result = train({}, {**values, "compile": True}, data=data, run_dir=tmp_path / "compiled")
    first, *others = losses(tmp_path / "plain").items()
    for (step, logged), tolerance in [(first, 1e-3), *((other, 0.2) for other in others)]:
        assert losses(tmp_path / "compiled")[step] == pytest.approx(logged, rel=tolerance)
    signal = torch.rand(1, 3, 16, 16) if folder == "images" else torch.rand(1, 1, 2400)
    assert zoo.load(result.weights).encode(signal).numel()
