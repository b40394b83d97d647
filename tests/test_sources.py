"""A variant with two published files: which one `zoo.load` takes, with the Hub and without."""

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import save_file

import zoo
from tests.support.hub_server import HubServer
from zoo.checkpoints import KeyMap
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.registry import HubSource

NAME = "tiny-with-two-files"
AUTHORS = HubSource("authors/tiny", "tiny.ckpt", keys=KeyMap(("theirs.", "encoder."), layout=("state_dict",)))
PORT = HubSource("port/tiny", "model.safetensors", keys=KeyMap(("model.enc.", "encoder."), ("model.dec.", "decoder.")))


@pytest.fixture
def variant(registrations) -> zoo.Variant:
    wetok = zoo.info("wetok-imagenet-f16")
    config = {"multipliers": (1, 1), "width": 32, "num_blocks": 1}
    return zoo.register(zoo.replace(wetok, NAME, hub=(AUTHORS, PORT), config=config, downsample=(2, 2)))


@pytest.fixture
def authors(server: HubServer, variant: zoo.Variant, tmp_path: Path) -> torch.Tensor:
    """The authors' repository is on the Hub; one of its weights."""
    return publish(server, variant, AUTHORS, tmp_path, seed=0)


@pytest.fixture
def port(server: HubServer, variant: zoo.Variant, tmp_path: Path) -> torch.Tensor:
    """The port's repository is on the Hub; one of its weights, which is not the authors'."""
    return publish(server, variant, PORT, tmp_path, seed=1)


def publish(server: HubServer, variant: zoo.Variant, source: HubSource, folder: Path, seed: int) -> torch.Tensor:
    keys = source.keys
    assert keys is not None
    tensors = {
        keys.published_key(key)[0]: {"shape": list(tensor.shape), "dtype": "float32"}
        for key, tensor in variant.build().state_dict().items()
    }
    checkpoint = synthetic_checkpoint({"tensors": tensors, "layout": keys.layout}, seed)
    path = folder / source.filename
    (save_file if path.suffix == ".safetensors" else torch.save)(checkpoint, path)
    server.add(source.repo, {source.filename: path.read_bytes()})
    state = checkpoint["state_dict"] if keys.layout else checkpoint
    return state[keys.published_key("encoder.head.bias")[0]]


def loaded() -> torch.Tensor:
    return zoo.load(NAME).state_dict()["encoder.head.bias"]


def test_with_nothing_on_this_machine_the_first_file_is_fetched_and_the_second_is_not(server, authors, port):
    assert torch.equal(loaded(), authors)
    assert not any("port/tiny" in request for request in server.requests)


def test_a_second_file_that_is_in_the_cache_is_loaded_without_the_hub(server, port):
    hf_hub_download(PORT.repo, PORT.filename)
    server.stop()
    assert torch.equal(loaded(), port)


def test_a_second_file_that_is_in_the_cache_is_loaded_in_offline_mode(server, port, monkeypatch):
    hf_hub_download(PORT.repo, PORT.filename)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    importlib.reload(constants)
    assert torch.equal(loaded(), port)


def test_a_second_file_that_is_in_the_cache_goes_before_a_first_one_on_the_hub(server, authors, port):
    hf_hub_download(PORT.repo, PORT.filename)
    server.requests.clear()
    assert torch.equal(loaded(), port)
    assert server.requests == []


def test_of_two_files_in_the_cache_the_first_is_taken(server, authors, port):
    for source in (PORT, AUTHORS):
        hf_hub_download(source.repo, source.filename)
    server.stop()
    assert torch.equal(loaded(), authors)


def test_a_conversion_of_the_second_file_loads_when_the_cache_is_gone(server, port):
    hf_hub_download(PORT.repo, PORT.filename)
    loaded()
    shutil.rmtree(constants.HF_HUB_CACHE)
    server.stop()
    assert torch.equal(loaded(), port)


def test_with_no_file_on_this_machine_and_no_hub_the_error_names_the_first(server, variant):
    server.stop()
    with pytest.raises(zoo.WeightsUnavailableError, match=r"needs tiny\.ckpt of authors/tiny, which is not on"):
        zoo.load(NAME)


def test_where_the_first_file_is_gone_from_the_hub_the_second_is_fetched(server, port):
    assert torch.equal(loaded(), port)


def test_where_both_are_gone_the_error_names_the_first(server, variant):
    with pytest.raises(zoo.WeightsUnavailableError, match=r"needs tiny\.ckpt of authors/tiny, which .* does not show"):
        zoo.load(NAME)
