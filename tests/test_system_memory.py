"""How much memory is free, and memory that is kept for the next tensors."""

import subprocess
import sys

import pytest

from zoo import system_memory

FAULTS = """
import resource, sys
import torch, zoo

if not zoo.keep_freed_memory():
    raise SystemExit(3)
for _ in range(20):  # small objects take pieces of what is kept, until it is as large as it gets
    torch.zeros(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults() -> int:
    """Page faults of a process that makes a tensor of 64 MiB, of 16,384 pages, ten times more."""
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    if ran.returncode == 3:
        pytest.skip("the C library is not glibc")
    return int(ran.stdout)


def test_a_tensor_gets_the_memory_of_one_that_was_freed():
    assert faults() < 2 * 16384


def test_without_glibc_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not system_memory.keep_freed_memory()


def test_free_memory_is_the_systems_and_no_more_than_a_containers_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(system_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(system_memory, "CGROUP", tmp_path)
    assert system_memory.free_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    5000 kB\n")
    assert system_memory.free_bytes() == 5000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert system_memory.free_bytes() == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert system_memory.free_bytes() == 2000
