"""Places to read data from."""

from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """What a test writes to `memory://` is gone after it."""
    yield
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the package datasets (extra: scale) is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets
