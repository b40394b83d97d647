"""What the figures of a benchmark depend on besides its data: versions, the machine, and how memory is measured."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import zoo
import zoo.metrics
from zoo.system_memory import release_freed_memory

PACKAGES = (
    *("torch", "torchvision", "torchaudio", "torchmetrics", "torch-fidelity", "numpy", "scipy", "pillow", "av"),
    *("soundfile", "pystoi", "pesq", "biotite"),
)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def versions() -> dict[str, str]:
    """Return the versions of Python, zoo, those of `PACKAGES` that are installed, and the codecs' libraries."""
    import av
    import soundfile
    from PIL import features

    found = {"python": platform.python_version(), "zoo": zoo.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in ("libjpeg_turbo", "webp", "avif"):
        if (version := features.version(name)) is not None:
            found[name] = version
    return {**found, "ffmpeg": av.ffmpeg_version_info, "libsndfile": soundfile.__libsndfile_version__}


def metrics_version() -> str:
    """Return a hash of the definitions of all metrics, `zoo/metrics/*.py`, and the versions of what computes them."""
    digest = hashlib.sha256()
    for path in sorted(Path(zoo.metrics.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(repr(sorted(versions().items())).encode())
    return digest.hexdigest()[:16]


def machine_facts(device: str) -> dict[str, Any]:
    """Return processor, cores, threads, memory and system, and how peak memory is measured."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
        "peak_memory": PeakMemory.how_measured(device),
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


class PeakMemory:
    """The most memory that was held during `watch`, beyond what was held when this object was made.

    It is the memory of this process, or on CUDA that of the device.

    Attributes:
        bytes: what the last `watch` measured, 0 before.
    """

    def __init__(self, device: str):
        self.device = device
        self.cuda = torch.device(device).type == "cuda"
        gc.collect()
        release_freed_memory()
        self.start = torch.cuda.memory_allocated(device) if self.cuda else resident("VmRSS")
        self.bytes = 0

    @staticmethod
    def how_measured(device: str) -> str:
        """Return how memory is measured here, in words."""
        what = "beyond what was held before the candidate's weights were loaded; greatest of all items"
        if torch.device(device).type == "cuda":
            return f"torch.cuda.max_memory_allocated, {what}"
        if can_reset_peak():
            return f"the kernel's high-water mark of resident memory (VmHWM), reset before each item, {what}"
        return f"the process's greatest resident memory so far (ru_maxrss), {what}"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the block; `bytes` is set when it ends."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif can_reset_peak():
            CLEAR.write_text("5")
        yield
        peak = torch.cuda.max_memory_allocated(self.device) if self.cuda else resident("VmHWM")
        self.bytes = max(0, peak - self.start)


def can_reset_peak() -> bool:
    """Return whether the kernel lets this process reset the peak of its memory."""
    return STATUS.exists() and os.access(CLEAR, os.W_OK)


def resident(field: str) -> int:
    """Return resident memory in bytes: now (`VmRSS`) or at most (`VmHWM`); except on Linux, the greatest for both."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
        return 1024 * int(line.split()[1])
    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return greatest if sys.platform == "darwin" else 1024 * greatest
