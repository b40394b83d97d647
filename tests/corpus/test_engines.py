"""Engines: several processes, actors of Ray, and processes that are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.tokenized import digest, write_media
from tests.support.tokenizers import trained
from zoo import corpus
from zoo.corpus.engines import local

NAME = "wetok-nano"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve small pictures, of which one is damaged."""
    folder = write_media(tmp_path_factory.mktemp("in"), trained()[NAME], 11)
    (folder / "part 1" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What one undisturbed process makes of it."""
    out = tmp_path_factory.mktemp("whole")
    assert corpus.tokenize(NAME, source, out, items_per_shard=2).items == 11
    return digest(out)


def run_and_kill(source, out, shards, *workers) -> None:
    """Run in another process, which kills itself after some shards."""
    command = [sys.executable, "-m", "tests.support.tokenized", NAME, source, out, shards, *workers]
    ran = subprocess.run([str(part) for part in command], env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def children() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def test_a_process_that_is_killed_again_and_again_loses_and_doubles_nothing(source, whole, tmp_path):
    for shards in (1, 3):
        run_and_kill(source, tmp_path, shards)
        assert not (tmp_path / "manifest.json").exists()
    found = corpus.tokenize(NAME, source, tmp_path, items_per_shard=2)
    assert (found.items, len(found.failures)) == (11, 1)
    assert digest(tmp_path) == whole


def test_two_processes_give_what_one_gives_also_after_one_of_them_was_killed(source, whole, tmp_path):
    killed = []

    def kill_one(progress: corpus.Progress) -> None:
        if not killed:
            killed.append(min(children()))
            os.kill(killed[0], signal.SIGKILL)

    found = corpus.tokenize(NAME, source, tmp_path, items_per_shard=2, workers=2, progress=kill_one)
    assert found.is_complete and killed and not children()
    assert digest(tmp_path) == whole


def test_processes_end_with_the_one_that_started_them(source, whole, tmp_path):
    run_and_kill(source, tmp_path, 1, 2)
    until = time.monotonic() + 30
    while (left := orphans()) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left
    corpus.tokenize(NAME, source, tmp_path, items_per_shard=2)
    assert digest(tmp_path) == whole


def orphans() -> list[int]:
    """Processes of this machine whose parent is gone and that were started for a corpus."""
    found = []
    for line in subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.splitlines()[1:]:
        pid, parent, arguments = line.split(maxsplit=2)
        if parent == "1" and "multiprocessing.spawn" in arguments:
            found.append(int(pid))
    return found


def test_ctrl_c_ends_the_processes_as_well(source, whole, tmp_path):
    def stop(progress: corpus.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.tokenize(NAME, source, tmp_path, items_per_shard=2, workers=2, progress=stop)
    assert not children()
    corpus.tokenize(NAME, source, tmp_path, items_per_shard=2)
    assert digest(tmp_path) == whole


def test_a_worker_that_cannot_start_says_why(source, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "devices_of", lambda device: ["cuda:99"])
    found = corpus.tokenize(NAME, source, tmp_path, workers=2)
    assert not found.is_complete and found.items == 0
    assert "cuda:99" in str(found.failed_shards[0].error)


@pytest.mark.slow  # Ray takes half a minute to start
def test_actors_of_ray_give_what_one_process_gives_also_after_one_was_killed(source, whole, tmp_path):
    ray = pytest.importorskip("ray")
    killed = []

    def kill_one(progress: corpus.Progress) -> None:
        if not killed:
            processes = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
            actors = [line for line in processes.splitlines() if "ray::" in line and "Actor" in line]
            killed.append(int(actors[0].split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    try:
        found = corpus.tokenize(NAME, source, tmp_path, items_per_shard=2, engine="ray", progress=kill_one)
    finally:
        ray.shutdown()
    assert found.is_complete and killed
    assert digest(tmp_path) == whole
